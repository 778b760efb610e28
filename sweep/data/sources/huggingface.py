"""Corpora of tables: pinned data sets of the hub, and local files.

No code of a data set is executed: only plain data formats are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from sweep.config import HuggingFaceData
from sweep.config.places import user_path
from sweep.data.documents import Document, Dropped, document
from sweep.data.sources.first_bytes import read_text
from sweep.data.sources.hub import check_no_url, check_pinned, is_path
from sweep.data.sources.hub_readers import hub_texts
from sweep.data.sources.hub_rows import DEFAULT_SPLIT
from sweep.data.sources.source import Source, file_state
from sweep.data.sources.tables import table_documents
from sweep.errors import DataError, InputError

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".arrow")
"""Suffixes of data files in a directory, also with .gz or .zst; other files are ignored."""


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
    recipe = {
        "source": "huggingface",
        "dataset": config.dataset,
        "revision": config.revision,
        "subset": config.subset,
        "split": config.split or DEFAULT_SPLIT,
        "column": config.column,
        "n_documents": config.n_documents,
    }
    return Source(
        name=config.dataset,
        documents=lambda dropped: islice(_hub_documents(config, dropped), config.n_documents),
        recipe=recipe,
    )


def _hub_documents(config: HuggingFaceData, dropped: Dropped) -> Iterator[Document]:
    for number, text in enumerate(chain.from_iterable(hub_texts(config)), start=1):
        if text and not text.isspace():
            yield document(f"{config.dataset}, row {number}", text.encode())
        else:
            dropped.n_blank += 1


def _file_documents(paths: list[Path], column: str, dropped: Dropped) -> Iterator[Document]:
    for path in paths:
        yield from table_documents(path, column, dropped)


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
