"""Text columns of local files: JSON Lines, CSV, Parquet and Arrow."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sweep.data.documents import MAX_DOCUMENT_BYTES, Document, Dropped, document
from sweep.data.sources.first_bytes import kind_of
from sweep.data.sources.source import unreadable
from sweep.data.sources.text_files import pieces
from sweep.errors import DataError
from sweep.formats import MARKUP, is_markup

BATCH_ROWS = 64

MAX_NAMES, MAX_NAME_CHARS = 50, 40  # of columns in a message

SEPARATORS = {".csv": ",", ".tsv": "\t"}

Row = tuple[int, Any]
"""Number of a row or line, from 1, and the value of its text column."""


def table_documents(path: Path, column: str, dropped: Dropped) -> Iterator[Document]:
    """Yield one document per row of a file, without rows that have no text, which `dropped` counts.

    The content decides between Parquet, Arrow and text, which may be compressed with gzip or zstd; text is
    CSV if the name says so, else JSON Lines. Raises DataError, with file and line, for what cannot be read.
    """
    kind = kind_of(path)
    if kind in ("parquet", "arrow"):
        rows = _parquet_rows(path, column) if kind == "parquet" else _arrow_rows(path, column)
        unit = "row"
    else:
        unit = "line"
        suffix = next((suffix for suffix in path.suffixes[-2:] if suffix in SEPARATORS), None)
        rows = _csv_rows(path, column, SEPARATORS[suffix]) if suffix else _json_rows(path, column)
    for number, value in rows:
        place = f"{path}, {unit} {number}"
        text = utf8(value, place, column) if isinstance(value, bytes) else value
        if text is None or (isinstance(text, str) and (not text or text.isspace())):
            dropped.n_blank += 1
            continue
        yield document(place, _encoded(text, place, column))


def utf8(value: bytes, place: str, column: str) -> str:
    """Return the text of a value of a binary column. Raises DataError for one that is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: byte {value[error.start]:#04x} at offset {error.start} of data.column={column} is not "
            f"UTF-8 text: choose another column, or convert it"
        ) from None


def is_text(kind: Any) -> bool:
    """Return True for an Arrow type that holds text, bytes that may be text, or only nulls."""
    import pyarrow  # type: ignore[import-untyped]  # slow to import

    types = pyarrow.types
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    of_text = (types.is_string, types.is_large_string, types.is_string_view)
    of_bytes = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(check(kind) for check in (*of_text, *of_bytes, types.is_null))


def check_column(names: Iterable[str], column: str, place: str) -> None:
    """Raise DataError, with the names of the columns, when `column` is not one of them."""
    listed = list(names)
    if column not in listed:
        shown = [name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…" for name in listed]
        header = "; the first line is read as the header" if shown != listed else ""
        raise DataError(
            f"data.column={column} not found in {place}: choose from "
            f"{', '.join(shown[:MAX_NAMES])}{', …' * (len(shown) > MAX_NAMES)}{header}"
        )


def not_text(column: str, place: str, kind: object) -> DataError:
    """Return the error for a column that holds something else than text."""
    return DataError(f"data.column={column} of {place} has type {kind}, not text: choose another column")


def _encoded(text: Any, place: str, column: str) -> bytes:
    if not isinstance(text, str):
        raise not_text(column, place, type(text).__name__)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        unit = f"\\u{ord(text[error.start]):04x}"
        raise DataError(
            f"{place}: character {error.start + 1} is {unit}, half of a surrogate pair, which UTF-8 cannot "
            f"represent: correct or remove the text"
        ) from None


def _json_rows(path: Path, column: str) -> Iterator[Row]:
    names: list[str] | None = None  # of the first row
    is_found = False
    for _, line, content in pieces(path, b"\n"):
        if content.strip():
            values = _json_object(path, line, content)
            names = list(values) if names is None else names
            is_found = is_found or column in values
            yield line, values.get(column)
    if names is not None and not is_found:
        check_column(names, column, str(path))


def _json_object(path: Path, line: int, content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content.decode())  # of bytes it would guess the encoding
    except (ValueError, RecursionError) as error:
        if line == 1 and is_markup(content):
            raise DataError(f"{path} is {MARKUP}") from None
        form = ".[]" if line == 1 and content.lstrip().startswith(b"[") else "."
        other = f", convert other JSON with jq -c '{form}', or read plain text with data=text"
        remedy = other if line == 1 else ""
        raise DataError(f"{path}, line {line} is not valid JSON ({error}): correct it{remedy}") from None
    if not isinstance(values, dict):
        remedy = " with jq -c '.[]'" if isinstance(values, list) else ""
        raise DataError(
            f"{path}, line {line} is JSON but not an object: convert the file to one object per line{remedy}"
        )
    return values


def _csv_rows(path: Path, column: str, separator: str) -> Iterator[Row]:
    csv.field_size_limit(max(MAX_DOCUMENT_BYTES, csv.field_size_limit()))
    lines = (content.decode() + "\n" for _, _, content in pieces(path, b"\n"))
    reader = csv.reader(lines, delimiter=separator, strict=True)
    header: list[str] | None = None
    first = 1  # line on which the row begins
    try:
        for row in reader:
            if row and header is None:
                header = [name.strip() for name in row]
                if is_markup(row[0].encode()):
                    raise DataError(f"{path} is {MARKUP}")
                _check_header(header, column, path)
            elif row and header is not None:
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {first} has {len(row)} fields and the header {len(header)}: correct it"
                    )
                yield first, row[header.index(column)]
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {first} is not valid CSV ({error}): correct it") from None


def _check_header(header: list[str], column: str, path: Path) -> None:
    if header.count(column) > 1:
        raise DataError(f"{path} has {header.count(column)} columns named {column}: rename all but one")
    separator = next((sign for sign in ";\t|" if len(header) == 1 and sign in header[0]), None)
    if column not in header and separator is not None:
        raise DataError(
            f"{path} separates columns with {separator!r}: save it separated by commas, or by tabs as .tsv"
        )
    check_column(header, column, str(path))


def _parquet_rows(path: Path, column: str) -> Iterator[Row]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    def batches() -> Iterator[Any]:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_schema(file.schema_arrow, column, path)
            yield from file.iter_batches(BATCH_ROWS, columns=[column])

    return _batch_rows(path, column, "parquet", batches())


def _arrow_rows(path: Path, column: str) -> Iterator[Row]:
    import pyarrow

    def batches() -> Iterator[Any]:
        with pyarrow.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            if is_file:
                file = pyarrow.ipc.open_file(source)
                _check_schema(file.schema, column, path)
                yield from (file.get_batch(i) for i in range(file.num_record_batches))
            else:
                stream = pyarrow.ipc.open_stream(source)
                _check_schema(stream.schema, column, path)
                yield from stream

    return _batch_rows(path, column, "arrow", batches())


def _check_schema(schema: Any, column: str, path: Path) -> None:
    check_column(schema.names, column, str(path))
    kind = schema.field(column).type
    if not is_text(kind):
        raise not_text(column, str(path), kind)


def _batch_rows(path: Path, column: str, kind: str, batches: Iterator[Any]) -> Iterator[Row]:
    import pyarrow

    number = 0
    try:
        for batch in batches:
            for first in range(0, batch.num_rows, BATCH_ROWS):
                for text in batch.column(column).slice(first, BATCH_ROWS).to_pylist():
                    number += 1
                    yield number, text
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise DataError(
            f"{path} is damaged or incomplete ({kind}, row {number + 1}: {reason}): download or write it "
            f"again"
        ) from None
