"""Registry of text sources, and the corpus of a data config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.config import DataConfig, MixtureData, PartConfig
from sweep.data.corpus import Corpus, check_documents, check_split, mixed, scan_source
from sweep.data.documents import ALL_HELD_OUT, Document, Dropped, distinct
from sweep.data.sources.huggingface import huggingface_source
from sweep.data.sources.python_files import python_source, stdlib_source
from sweep.data.sources.source import Source
from sweep.data.sources.synthetic import synthetic_source
from sweep.data.sources.text_files import text_source
from sweep.errors import DataError, SweepError

SOURCES: Mapping[str, Callable[[Any], Source]] = {
    "stdlib": stdlib_source,
    "python": python_source,
    "text": text_source,
    "huggingface": huggingface_source,
    "synthetic": synthetic_source,
    "mixture": lambda config: _mixture_source(config),
}
"""Constructors of sources by `DataConfig.source`, one per config class."""


def parts_of(config: MixtureData) -> dict[str, PartConfig]:
    """Return the corpora of a mixture by name, with the mixture's held-out share."""
    return {
        name: replace(part, holdout_frac=config.holdout_frac) for name, part in sorted(config.parts.items())
    }


def _mixture_source(config: MixtureData) -> Source:
    """Return all documents of all parts, which a tokenizer is trained on; `shards` mixes them by tokens."""
    sources = []
    for name, part in parts_of(config).items():
        with _naming(name):
            sources.append(source_of(part))
    return Source(
        name="mixture",
        documents=lambda dropped: (found for source in sources for found in source.documents(dropped)),
    )


@contextmanager
def _naming(part: str) -> Iterator[None]:
    """Add the name of a part of a mixture to errors."""
    try:
        yield
    except SweepError as error:
        raise type(error)(f"data.parts.{part}: {error}") from None


def source_of(config: DataConfig) -> Source:
    """Return the source of a config. Raises DataError for an unknown source or missing files."""
    if config.source not in SOURCES:
        raise DataError(f"unknown data.source={config.source}: choose from {', '.join(SOURCES)}")
    return SOURCES[config.source](config)


def documents(config: DataConfig, source: Source | None = None) -> Iterator[Document]:
    """Yield the distinct documents of a source in a deterministic order.

    Of documents with equal content only the first is kept.

    Raises:
        DataError: The source is unknown, or a document cannot be read or is not UTF-8.
    """
    return distinct((source or source_of(config)).documents(Dropped()))


def as_set(config: PartConfig) -> PartConfig:
    """Return the config of an evaluation set: all documents are held out."""
    return replace(config, holdout_frac=ALL_HELD_OUT)


def scan(config: DataConfig, data_dir: Path | None = None, source: Source | None = None) -> Corpus:
    """Return the corpus of a data config: its hash and sizes, without tokenising it. Run keys depend on it.

    With `data_dir`, the result is cached there until a file of the source changes. `source` is the config's,
    if it was built before: large corpora take seconds to list.

    Raises:
        DataError: The source is unknown, empty or unreadable, or one side of the split has no text.
    """
    cache_dir = None if data_dir is None else data_dir / "scans"
    if isinstance(config, MixtureData):
        corpus = mixed(scan_parts(config, data_dir), config)
    else:
        source = source or source_of(config)
        corpus = scan_source(source, config, cache_dir)
        check_documents(corpus, source.remedy_for_one_document, config.holdout_frac)
    check_split(corpus, config.holdout_frac)
    return corpus


def scan_parts(config: MixtureData, data_dir: Path | None = None) -> dict[str, Corpus]:
    """Return the corpus of each part of a mixture. Raises DataError, which names the part, as `scan`."""
    cache_dir = None if data_dir is None else data_dir / "scans"
    found = {}
    for name, part in parts_of(config).items():
        with _naming(name):
            corpus = found[name] = scan_source(source_of(part), part, cache_dir)
        if corpus.n_bytes == 0:
            raise DataError(f"data.parts.{name} is empty: no text found, choose other files or leave it out")
    return found
