"""Corpora read with the `datasets` library: pinned data sets of the hub, and Parquet or JSON Lines files.

No code of a data set is executed: only plain data formats are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from sweep.config import HuggingFaceData
from sweep.data.documents import Document, document
from sweep.data.sources.hub import check_pinned, check_reachable, first_line, is_path
from sweep.data.sources.source import Source, file_state
from sweep.data.sources.text_files import pieces
from sweep.errors import DataError, DataInterrupted, InputError, SweepError

FORMATS = {".parquet": "parquet", ".jsonl": "json", ".ndjson": "json"}
"""The library's reader by suffix of local files; other files are ignored."""

HUB_FORMATS = frozenset({"parquet", "json", "csv", "text", "arrow"})
"""The library's readers of plain data. Its other readers unpickle, or read more than text."""

BATCH_ROWS = 64

READ_RETRIES = 3  # of an interrupted stream, 5 s apart; the library's default is 20


def huggingface_source(config: HuggingFaceData) -> Source:
    """Return the text column of a data set on the hub, or of local files.

    Raises:
        InputError: The revision is not a commit, or a key of the hub is set for a path.
        DataError: No matching files were found.
    """
    if not is_path(config.dataset):
        return _hub_source(config)
    for key in ("revision", "subset"):
        if getattr(config, key) is not None:
            raise InputError(f"data.{key} has no effect on the local path {config.dataset}: set it to null")
    paths = _data_files(config)
    return Source(
        name=Path(config.dataset).expanduser().resolve().name,
        documents=lambda: islice(_file_documents(paths, config), config.n_documents),
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
        documents=lambda: islice(_hub_documents(config, split), config.n_documents),
        recipe=recipe,
    )


def _hub_documents(config: HuggingFaceData, split: str) -> Iterator[Document]:
    place = f"data.dataset={config.dataset}"
    try:
        with _library() as library:
            yield from _texts(_hub_rows(library, config, split), config.column, config.dataset)
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


def _file_documents(paths: list[Path], config: HuggingFaceData) -> Iterator[Document]:
    with _library() as library:
        for path in paths:
            reader = FORMATS[path.suffix]
            if reader == "json":
                for _ in pieces(path, b"\n"):  # raises for other encodings and long lines, with the offset
                    pass
            try:
                rows = library.load_dataset(
                    reader, data_files=str(path.absolute()), split="train", streaming=config.streaming
                )
                yield from _texts(rows, config.column, str(path))
            except SweepError:
                raise
            except Exception as error:  # pyarrow and the library also raise bare Exceptions
                cause = error.__cause__ or error
                raise DataError(f"{path} cannot be read as {reader}: {first_line(cause)}") from None


def _texts(rows: Any, column: str, place: str) -> Iterator[Document]:
    """Yield one document per row, without rows that have no text. Raises DataError."""
    import pyarrow  # type: ignore[import-untyped]

    number = 0
    for table in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
        if column not in table.column_names:
            choices = ", ".join(table.column_names)
            raise DataError(f"data.column={column} not found in {place}: choose from {choices}")
        kind = table.schema.field(column).type
        is_text = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
        if not is_text and not pyarrow.types.is_null(kind):
            raise DataError(
                f"data.column={column} of {place} has type {kind}, not text: choose another column"
            )
        for text in table.column(column).to_pylist():
            number += 1
            if text and not text.isspace():
                yield document(f"{place}, row {number}", text.encode())


def _data_files(config: HuggingFaceData) -> list[Path]:
    """Return the data files of `config.dataset` and `config.split`, sorted by name."""
    root = Path(config.dataset).expanduser()
    if not root.exists():
        raise DataError(f"data.dataset={config.dataset} not found: check the path")
    found = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    files = [path for path in found if path.suffix in FORMATS]
    if config.split is not None:
        part = re.compile(rf"(^|/){re.escape(config.split)}([-._/]|$)")
        base = root if root.is_dir() else root.parent
        files = [path for path in files if part.search(path.relative_to(base).as_posix())]
    if not files:
        of_split = "" if config.split is None else f" of split {config.split}"
        remedy = "" if config.split is None else f", named {config.split}/… or {config.split}-….parquet"
        raise DataError(
            f"data.dataset={config.dataset}: no file{of_split} found: "
            f"give a directory with {', '.join(FORMATS)} files{remedy}"
        )
    return files


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
