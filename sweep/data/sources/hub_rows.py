"""Rows of a data set on the hub, read with the `datasets` library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.config import HuggingFaceData
from sweep.data.sources.hub import check_reachable, first_line
from sweep.data.sources.tables import BATCH_ROWS, check_column, is_text, not_text, utf8
from sweep.errors import DataError, DataInterrupted, InputError, SweepError

HUB_FORMATS = frozenset({"parquet", "json", "csv", "text", "arrow"})
"""The library's readers of plain data. Its other readers unpickle, or read more than text."""

DEFAULT_SPLIT = "train"

READ_RETRIES = 3  # of an interrupted stream, 5 s apart; the library's default is 20

Texts = list[str | None]
"""Texts of consecutive rows; None for a row without a value."""


@contextmanager
def opened(config: HuggingFaceData) -> Iterator[Any]:
    """Yield the rows of a data set: a stream, or a downloaded copy without `config.streaming`.

    Raises:
        InputError: The library is not installed.
        DataError: The data set is not found, has an unsupported format, or cannot be read.
        DataInterrupted: The network failed while rows were read inside the context.
    """
    place = f"data.dataset={config.dataset}"
    try:
        with _library() as library:
            yield _rows(library, config)
    except SweepError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place} cannot be read: {first_line(error)}") from None
    except Exception as error:  # network errors of several libraries
        raise DataInterrupted(
            f"{place}: the download stopped ({first_line(error)}): finished work is kept, "
            f"repeat the command to resume"
        ) from None


def file_texts(rows: Any, file: int, config: HuggingFaceData) -> Iterator[Texts]:
    """Yield the texts of one of the `num_shards` files of a stream, in the order of its rows."""
    place = f"{config.dataset}, file {file + 1} of {rows.num_shards}"
    return texts(rows.shard(num_shards=rows.num_shards, index=file), config, place)


def texts(rows: Any, config: HuggingFaceData, place: str | None = None) -> Iterator[Texts]:
    """Yield the text column of all rows, which are at `place`, by default the data set.

    Raises DataError where there is no such column, or it holds bytes that are not UTF-8.
    """
    place, n_rows = place or config.dataset, 0
    for table in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
        check_column(table.column_names, config.column, config.dataset)
        kind = table.schema.field(config.column).type
        if not is_text(kind):
            raise not_text(config.column, config.dataset, kind)
        values = table.column(config.column).to_pylist()
        yield [
            utf8(value, f"{place}, row {row}", config.column) if isinstance(value, bytes) else value
            for row, value in enumerate(values, start=n_rows + 1)
        ]
        n_rows += len(values)


def cache_directory() -> Path:
    """Return the library's directory for downloaded data sets."""
    with _library() as library:
        directory = Path(library.config.HF_DATASETS_CACHE)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _rows(library: Any, config: HuggingFaceData) -> Any:
    """Open or download the data set. Raises DataError when it is not found or has an unsupported format."""
    assert config.revision is not None
    check_reachable("dataset", "data.dataset", config.dataset, config.revision)
    place = f"data.dataset={config.dataset}"
    names = {"path": config.dataset, "name": config.subset, "revision": config.revision}
    try:
        builder = library.load_dataset_builder(**names)
        reader = type(builder).__module__.rpartition(".")[2]
        if reader not in HUB_FORMATS:
            supported = ", ".join(sorted(HUB_FORMATS))
            raise DataError(f"{place} has the unsupported format {reader}: choose a data set in {supported}")
        return library.load_dataset(**names, split=config.split or DEFAULT_SPLIT, streaming=config.streaming)
    except SweepError:
        raise
    except Exception as error:  # of several libraries
        raise DataError(f"{place} cannot be opened: {first_line(error)}") from None


@contextmanager
def _library() -> Iterator[Any]:
    """Yield the `datasets` library with logging off, few retries, and without its import of torch.

    Raises InputError when it is not installed.
    """
    try:
        import datasets  # type: ignore[import-untyped]
        from huggingface_hub.utils import logging
    except ImportError:
        raise InputError(
            "data=huggingface needs the datasets library: pip install 'sweep[train]', or use data=text"
        ) from None
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    settings = {"STREAMING_READ_MAX_RETRIES": READ_RETRIES, "TORCH_AVAILABLE": False}
    before = {key: getattr(datasets.config, key) for key in settings}
    try:
        for key, value in settings.items():
            setattr(datasets.config, key, value)
        yield datasets
    finally:  # a notebook may use the library with other settings
        for key, value in before.items():
            setattr(datasets.config, key, value)
