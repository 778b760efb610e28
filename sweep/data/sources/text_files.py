"""Corpora of UTF-8 text files, one document per file or split at a delimiter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sweep.config import TextData
from sweep.data.documents import MAX_DOCUMENT_BYTES, Document, Dropped, document, not_utf8, too_long
from sweep.data.sources.first_bytes import text_chunks
from sweep.data.sources.source import Source, file_state, matching_files

READ_BYTES = 2**23  # small next to a document's limit, large enough that appending costs little

ONE_DOCUMENT_REMEDY = (
    "split it into documents with data.delimiter, such as 'data.delimiter=\\n\\n' for an empty line"
)


def text_source(config: TextData) -> Source:
    """Return the files that match `config.files`, in order. Raises DataError when there are none."""
    paths = matching_files("data.files", config.files)
    delimiter = None if config.delimiter is None else unescaped(config.delimiter).encode()
    return Source(
        name="text",
        documents=lambda dropped: (
            found for path in paths for found in file_documents(path, delimiter, dropped)
        ),
        remedy_for_one_document=ONE_DOCUMENT_REMEDY if delimiter is None else _other_delimiter(config),
        files=lambda: map(file_state, paths),
    )


def _other_delimiter(config: TextData) -> str:
    return (
        f"data.delimiter={config.delimiter} separates no further texts: choose one that the files contain, "
        f"or use a corpus with more documents"
    )


def unescaped(delimiter: str) -> str:
    r"""Replace the escapes \n, \t and \\ in a delimiter by a line end, a tab and a backslash.

    >>> unescaped(r"\n--\n") == "\n--\n"
    True
    """
    pieces = delimiter.split("\\\\")
    return "\\".join(piece.replace("\\n", "\n").replace("\\t", "\t") for piece in pieces)


def file_documents(path: Path | str, delimiter: bytes | None, dropped: Dropped) -> Iterator[Document]:
    """Yield the documents of one file: the whole file, or its parts between delimiters.

    Blank parts are left out and counted in `dropped`. Needs memory for one document at a time. The file may
    be compressed with gzip or zstd; a UTF-8 byte order mark is dropped.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or contains a document that is too long.
    """
    for _, line, content in pieces(path, delimiter):
        if content.strip():
            yield document(str(path) if delimiter is None else f"{path}, line {line}", content)
        else:
            dropped.n_blank += 1


class Piece(NamedTuple):
    """Part of a file between two delimiters."""

    offset: int  # of its first byte in the file's text
    line: int  # of its first byte, from 1
    content: bytes


def pieces(path: Path | str, delimiter: bytes | None) -> Iterator[Piece]:
    """Yield the pieces of a file; one that ends with a delimiter has no empty piece after it.

    A line end in the delimiter also matches CR LF. Raises DataError as `file_documents`.
    """
    for piece in _split(path, delimiter):
        try:
            piece.content.decode("utf-8")
        except UnicodeDecodeError as error:
            place, line = error.start, piece.line + piece.content.count(b"\n", 0, error.start)
            raise not_utf8(f"{path}, line {line}", piece.content[place], piece.offset + place) from None
        yield piece


def _split(path: Path | str, delimiter: bytes | None) -> Iterator[Piece]:
    offset, line, rest = -1, 1, b""
    for place, chunk in text_chunks(path, READ_BYTES):
        offset = place if offset < 0 else offset
        rest += chunk
        *whole, (rest, _) = [(rest, b"")] if delimiter is None else _parts(rest, delimiter)
        for content, end in whole:
            yield Piece(offset, line, content)
            offset += len(content) + len(end)
            line += content.count(b"\n") + end.count(b"\n")
        if len(rest) > MAX_DOCUMENT_BYTES:
            raise too_long(str(path) if delimiter is None else f"{path}, from line {line} on,")
    if rest:
        yield Piece(offset, line, rest)


def _parts(content: bytes, delimiter: bytes) -> list[tuple[bytes, bytes]]:
    """Return the parts of `content` between delimiters, each with the delimiter that ends it."""
    if b"\n" not in delimiter or b"\r\n" not in content:
        return [(part, delimiter) for part in content.split(delimiter)]
    pattern = rb"\r?\n".join(re.escape(part) for part in delimiter.split(b"\n"))
    parts = [*re.split(b"(" + pattern + b")", content), b""]
    return list(zip(parts[::2], parts[1::2], strict=True))
