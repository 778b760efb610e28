"""Readers of table files: delimited text as spreadsheets write it, Parquet and JSON Lines."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.errors import InputError
from sweep.fit.table.numbers import BLANKS
from sweep.formats import ARROW, GZIP, MARKUP, PARQUET, ZSTD, is_markup, unreadable_format

COMPRESSED = (".gz", ".zst")
HEAD_BYTES = 1024  # enough for every signature
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
SEPARATORS = (",", ";", "\t", "|")
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cells:
    """The columns of a table before they are interpreted, all of one length."""

    source: str  # names the table in messages
    columns: dict[str, list[Any]]
    lines: tuple[int, ...] | None = None  # line of the file in which each row ends; None for binary tables
    semicolons: bool = False  # columns are separated by semicolons, as where the decimal mark is a comma
    notes: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def place(self, index: int) -> str:
        """Return the name of a row in messages: its number after the header, and its line in the file."""
        return f"row {index + 1}" + (f" (line {self.lines[index]})" if self.lines else "")


def read_cells(path: Path) -> Cells:
    """Read a table, with text for each value of a delimited file.

    Raises:
        InputError: the file is missing, its suffix is unknown, or its content is not such a table.
    """
    suffix = _suffix(path)
    reader = READERS.get(suffix)
    if suffix in SPREADSHEETS:
        raise InputError(f"{path}: a spreadsheet is not a table of text: save its sheet as CSV, and fit that")
    if path.is_file():
        _check_format(path, _head(path))
    if reader is None or (reader in BINARY and _is_compressed(path)):
        raise InputError(
            f"{path}: unknown suffix {''.join(path.suffixes[-2:])!r}: save the table as one of "
            f"{', '.join(READERS)}; text may be compressed (.csv.gz)"
        )
    try:
        cells = _reader_of_content(path, reader)(path)
    except FileNotFoundError:
        target = f", a link to {path.readlink()}, which does not exist" if path.is_symlink() else ""
        raise InputError(f"{path}: file not found{target}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a directory: give a file in it") from None
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        # the parse errors of pyarrow and json are ValueErrors
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot read it as {suffix[1:]} ({first_line})") from None
    if not cells.n_rows:
        raise InputError(f"{path}: the table has no rows; give one row for each finished run")
    return cells


def _reader_of_content(path: Path, reader: Callable[[Path], Cells]) -> Callable[[Path], Cells]:
    """Return the reader for a file's first bytes, else `reader`; a pipe can be read only once."""
    head = _head(path) if path.is_file() else b""
    if head.startswith(PARQUET):
        return _read_parquet
    return _read_arrow if head.startswith(ARROW) else reader


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def _check_format(path: Path, content: bytes) -> None:
    """Raise InputError, with the tool that helps, for content that is no table."""
    if (description := unreadable_format(content[:HEAD_BYTES])) is not None:
        raise InputError(f"{path} is {description}")
    if is_markup(content[:HEAD_BYTES]):
        raise InputError(f"{path} is {MARKUP}")


def is_known_table(path: Path) -> bool:
    """Return whether a path has the suffix of a table, compressed or not."""
    return _suffix(path) in READERS or _suffix(path) in SPREADSHEETS


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSED


def _suffix(path: Path) -> str:
    """Return the suffix in lower case, without that of compression."""
    return (path.with_suffix("") if _is_compressed(path) else path).suffix.lower()


def _content(path: Path) -> bytes:
    """Return the bytes of a file, decompressed."""
    content = path.read_bytes()
    if content.startswith(GZIP):
        content = gzip.decompress(content)
    elif content.startswith(ZSTD):
        import pyarrow  # type: ignore[import-untyped]  # slow to import

        content = pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd").read()
    _check_format(path, content)
    return content


def _read_delimited(path: Path) -> Cells:
    """Read delimited text; values stay text, because a run key such as 12345678e1234567 is no number."""
    text, notes = _decode(_content(path))
    lines, separator = _parse(text)
    header_at = next((at for at, (_, values) in enumerate(lines) if _width(values) > 1), 0)
    titles, lines = lines[:header_at], lines[header_at:]
    if titles:
        notes += (
            f"the lines above the header are skipped: {' / '.join(' '.join(v).strip() for _, v in titles)}",
        )
    header = [_clean(name) for name in lines[0][1]]
    header[0] = header[0].lstrip("# ")
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} is not unique; keep one column of that name")
    for row, (line, values) in enumerate(lines[1:], start=1):
        if any(value.strip() for value in values[len(header) :]):
            raise InputError(
                f"{path}: row {row} (line {line}) has {len(values)} values but the header names "
                f"{len(header)} columns: add the missing column names"
            )
    columns = {
        name: [_clean(values[at]) if at < len(values) else "" for _, values in lines[1:]]
        for at, name in enumerate(header)
        if name
    }
    return Cells(
        source=str(path),
        columns=columns,
        lines=tuple(line for line, _ in lines[1:]),
        semicolons=separator == ";",
        notes=notes,
    )


def _decode(content: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the text and, where its encoding had to be guessed, a note. Raises ValueError for no text."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    if encoding is None and 5 * content[:1000].count(b"\0") > 2 * len(content[:1000]):
        # UTF-16 without a mark: ASCII has a zero in each pair
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None:
            raise
        return content.decode("latin-1"), ("the file is no UTF-8 and is read as Latin-1",)
    if "\0" in text:
        raise ValueError("it is a binary file or has a byte 0")
    return text, ()


def _parse(text: str) -> tuple[list[tuple[int, list[str]]], str]:
    """Return the rows that are not blank, each with its line, and the separator that gives most rows the
    width of the header; the first separator among equals.

    Raises csv.Error for an unclosed quote, ValueError for an empty file.
    """
    best: tuple[tuple[int, int], list[tuple[int, list[str]]], str] | None = None
    failure: csv.Error | None = None
    for separator in SEPARATORS:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
        )
        try:
            rows = [(reader.line_num, values) for values in reader if any(map(str.strip, values))]
        except csv.Error as error:
            failure = failure or error
            continue
        widths = [len(values) for _, values in rows]
        header = next((len(values) for _, values in rows if _width(values) > 1), 0)
        score = (widths.count(header) if header > 1 else 0, header)
        if best is None or score > best[0]:
            best = score, rows, separator
    if failure is not None and (best is None or not best[0][0]):
        raise failure
    if best is None or not best[1]:
        raise ValueError("it is empty")
    return best[1], best[2]


def _width(values: Sequence[str]) -> int:
    return sum(bool(value.strip()) for value in values)


def _clean(value: str) -> str:
    return value.translate(BLANKS).strip()


def _read_parquet(path: Path) -> Cells:
    import pyarrow.parquet  # type: ignore[import-untyped]

    return Cells(source=str(path), columns=pyarrow.parquet.read_table(path).to_pydict())


def _read_arrow(path: Path) -> Cells:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        is_file = source.read(6) == ARROW[0][:6]
        source.seek(0)
        opened = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
        return Cells(source=str(path), columns=opened.read_all().to_pydict())


def _read_json_lines(path: Path) -> Cells:
    """Read one JSON object a line, or a list of objects; a key that an object lacks is missing in its row."""
    text, notes = _decode(_content(path))
    rows: list[tuple[int, Any]] = []
    if text.lstrip().startswith("["):
        rows = [(0, entry) for entry in json.loads(text)]
    else:
        for line, content in enumerate(text.splitlines(), start=1):
            if content.strip():
                try:
                    rows.append((line, json.loads(content)))
                except ValueError as error:
                    raise ValueError(_single_object(text) or f"line {line}: {error}") from None
    for line, entry in rows:
        if not isinstance(entry, dict):
            raise ValueError(f"line {line} is not an object" if line else "an entry is not an object")
    names = dict.fromkeys(name for _, entry in rows for name in entry)
    return Cells(
        source=str(path),
        columns={name: [entry.get(name) for _, entry in rows] for name in names},
        lines=tuple(line for line, _ in rows) if rows and rows[0][0] else None,
        notes=notes,
    )


def _single_object(text: str) -> str | None:
    """Return a description of a text that is one JSON object over several lines; None for another text."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    if {"schema_version", "methods"} <= document.keys():
        return "it is a fit, not a table: give the table that was fitted"
    return "it is one object over several lines: give one object a line, or a list of objects"


READERS: dict[str, Callable[[Path], Cells]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".tab": _read_delimited,
    ".txt": _read_delimited,
    ".dat": _read_delimited,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_lines,
}

BINARY = (_read_parquet, _read_arrow)
"""Readers of formats with compression of their own."""
