"""Corpora of tables: pinned data sets of the hub, read with the `datasets` library, and local files.

No code of a data set is executed: only plain data formats are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from sweep.config import HuggingFaceData
from sweep.config.places import user_path
from sweep.data.documents import Document, Dropped, document
from sweep.data.sources.first_bytes import read_text
from sweep.data.sources.hub import check_no_url, check_pinned, check_reachable, first_line, is_path
from sweep.data.sources.source import Source, file_state
from sweep.data.sources.tables import BATCH_ROWS, check_column, is_text, not_text, table_documents
from sweep.errors import DataError, DataInterrupted, InputError, SweepError

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".arrow")
"""Suffixes of data files in a directory, also with .gz or .zst; other files are ignored."""

HUB_FORMATS = frozenset({"parquet", "json", "csv", "text", "arrow"})
"""The library's readers of plain data. Its other readers unpickle, or read more than text."""

READ_RETRIES = 3  # of an interrupted stream, 5 s apart; the library's default is 20


def huggingface_source(config: HuggingFaceData) -> Source:
    """Return the text column of a data set on the hub, or of local files.

    Raises:
        InputError: The revision is not a commit, or a key of the hub is set for a path.
        DataError: No matching files were found.
    """
    check_no_url("data.dataset", config.dataset)
    if not is_path(config.dataset):
        return _hub_source(config)
    for key in ("revision", "subset"):
        if getattr(config, key) is not None:
            raise InputError(f"data.{key} has no effect on the local path {config.dataset}: set it to null")
    paths = _data_files(config)
    return Source(
        name=user_path(config.dataset, "data.dataset").resolve().name,
        documents=lambda dropped: islice(_file_documents(paths, config.column, dropped), config.n_documents),
        files=lambda: map(file_state, paths),
    )


def _hub_source(config: HuggingFaceData) -> Source:
    check_pinned("data.dataset", config.dataset, config.revision)
    split = config.split or "train"
    recipe = {
        "source": "huggingface",
        "dataset": config.dataset,
        "revision": config.revision,
        "subset": config.subset,
        "split": split,
        "column": config.column,
        "n_documents": config.n_documents,
    }
    return Source(
        name=config.dataset,
        documents=lambda dropped: islice(_hub_documents(config, split, dropped), config.n_documents),
        recipe=recipe,
    )


def _hub_documents(config: HuggingFaceData, split: str, dropped: Dropped) -> Iterator[Document]:
    place = f"data.dataset={config.dataset}"
    try:
        with _library() as library:
            yield from _texts(_hub_rows(library, config, split), config.column, config.dataset, dropped)
    except SweepError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place} cannot be read: {first_line(error)}") from None
    except Exception as error:  # network errors of several libraries
        raise DataInterrupted(
            f"{place}: the download stopped ({first_line(error)}): finished work is kept, "
            f"repeat the command to resume"
        ) from None


def _hub_rows(library: Any, config: HuggingFaceData, split: str) -> Any:
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
        return library.load_dataset(**names, split=split, streaming=config.streaming)
    except SweepError:
        raise
    except Exception as error:  # of several libraries
        raise DataError(f"{place} cannot be opened: {first_line(error)}") from None


def _file_documents(paths: list[Path], column: str, dropped: Dropped) -> Iterator[Document]:
    for path in paths:
        yield from table_documents(path, column, dropped)


def _texts(rows: Any, column: str, place: str, dropped: Dropped) -> Iterator[Document]:
    """Yield one document per row, without rows that have no text. Raises DataError."""
    number = 0
    for table in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
        check_column(table.column_names, column, place)
        kind = table.schema.field(column).type
        if not is_text(kind):
            raise not_text(column, place, kind)
        for text in table.column(column).to_pylist():
            number += 1
            if text and not text.isspace():
                yield document(f"{place}, row {number}", text.encode())
            else:
                dropped.n_blank += 1


def _data_files(config: HuggingFaceData) -> list[Path]:
    """Return the data files of `config.dataset` and `config.split`, sorted by name."""
    root = user_path(config.dataset, "data.dataset")
    if root.is_file() and config.split is None:
        return [root]
    if not root.exists():
        if root.is_symlink():
            file_state(root)  # raises the error for a link that leads nowhere
        raise DataError(f"data.dataset={config.dataset} not found: check the path")
    found = [root] if root.is_file() else sorted(path for path in root.rglob("*") if not path.is_dir())
    files = [path for path in found if _is_data(path)]
    if config.split is not None:
        part = re.compile(rf"(^|/){re.escape(config.split)}([-._/]|$)")
        base = root if root.is_dir() else root.parent
        files = [path for path in files if part.search(path.relative_to(base).as_posix())]
    if not files:
        of_split = "" if config.split is None else f" of split {config.split}"
        remedy = "" if config.split is None else f", named {config.split}/… or {config.split}-….parquet"
        raise DataError(
            f"data.dataset={config.dataset}: no file{of_split} found: "
            f"give a directory with {', '.join(SUFFIXES)} files{remedy}, or read plain text with data=text"
        )
    return files


def _is_data(path: Path) -> bool:
    """Return True for a data file by its name; of a directory of `save_to_disk`, only for those it lists."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if not name.endswith(SUFFIXES):
        return False
    state = path.parent / "state.json"
    if path.suffix != ".arrow" or not state.is_file():
        return True
    try:
        return path.name in {file["filename"] for file in json.loads(read_text(state))["_data_files"]}
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{state} is not a valid file of save_to_disk: save the data set again") from None


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
