"""The sources of text by name, and the corpus that each yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sweep.config import DataConfig
from sweep.data.corpus import Corpus, scan_source
from sweep.data.documents import Document, distinct
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
"""One function for each class of `DataConfig`, by its `source`."""


def source_of(config: DataConfig) -> Source:
    """The source a config names. Raises DataError when it is unknown or its files are not there."""
    if config.source not in SOURCES:
        raise DataError(f"data.source={config.source} is not known: choose from {', '.join(SOURCES)}")
    return SOURCES[config.source](config)


def documents(config: DataConfig) -> Iterator[Document]:
    """The documents of a source, distinct by content (the first name stays), in a deterministic order.

    Raises:
        DataError: The source is unknown, or a document cannot be read or is not UTF-8.
    """
    return distinct(source_of(config).documents())


def scan(config: DataConfig, data_dir: Path | None = None) -> Corpus:
    """The corpus a source yields now, read but not tokenised: what a plan needs for its run keys.

    With `data_dir`, remembered there for as long as no file changes.

    Raises:
        DataError: The source is unknown, empty or unreadable, or no text is left on one side of the split.
    """
    return scan_source(source_of(config), config, None if data_dir is None else data_dir / "scans")
