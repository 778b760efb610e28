"""Registry of text sources, and the corpus of a data config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sweep.config import DataConfig
from sweep.data.corpus import Corpus, scan_source
from sweep.data.documents import Document, Dropped, distinct
from sweep.data.sources.huggingface import huggingface_source
from sweep.data.sources.python_files import python_source, stdlib_source
from sweep.data.sources.source import Source
from sweep.data.sources.synthetic import synthetic_source
from sweep.data.sources.text_files import text_source
from sweep.errors import DataError

SOURCES: Mapping[str, Callable[[Any], Source]] = {
    "stdlib": stdlib_source,
    "python": python_source,
    "text": text_source,
    "huggingface": huggingface_source,
    "synthetic": synthetic_source,
}
"""Constructors of sources by `DataConfig.source`, one per config class."""


def source_of(config: DataConfig) -> Source:
    """Return the source of a config. Raises DataError for an unknown source or missing files."""
    if config.source not in SOURCES:
        raise DataError(f"unknown data.source={config.source}: choose from {', '.join(SOURCES)}")
    return SOURCES[config.source](config)


def documents(config: DataConfig) -> Iterator[Document]:
    """Yield the distinct documents of a source in a deterministic order.

    Of documents with equal content only the first is kept.

    Raises:
        DataError: The source is unknown, or a document cannot be read or is not UTF-8.
    """
    return distinct(source_of(config).documents(Dropped()))


def scan(config: DataConfig, data_dir: Path | None = None) -> Corpus:
    """Return the corpus of a data config: its hash and sizes, without tokenising it. Run keys depend on it.

    With `data_dir`, the result is cached there until a file of the source changes.

    Raises:
        DataError: The source is unknown, empty or unreadable, or one side of the split has no text.
    """
    return scan_source(source_of(config), config, None if data_dir is None else data_dir / "scans")
