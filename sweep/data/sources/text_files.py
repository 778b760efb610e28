"""Corpora of UTF-8 text files, one document per file or split at a delimiter."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from sweep.config import TextData
from sweep.data.documents import MAX_DOCUMENT_BYTES, Document, document, not_utf8, too_long
from sweep.data.sources.source import Source, file_state, matching_files, unreadable
from sweep.errors import DataError

READ_BYTES = 2**23  # small next to a document's limit, large enough that appending costs little

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # first, because it starts with the UTF-16 mark
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""First bytes of files in other encodings (Unicode 16.0, section 23.8)."""


def text_source(config: TextData) -> Source:
    """Return the files that match `config.files`, in order. Raises DataError when there are none."""
    paths = matching_files("data.files", config.files)
    delimiter = None if config.delimiter is None else unescaped(config.delimiter).encode()
    return Source(
        name="text",
        documents=lambda: (found for path in paths for found in file_documents(path, delimiter)),
        files=lambda: map(file_state, paths),
    )


def unescaped(delimiter: str) -> str:
    r"""Replace the escapes \n, \t and \\ in a delimiter by a line end, a tab and a backslash.

    >>> unescaped(r"\n--\n") == "\n--\n"
    True
    """
    pieces = delimiter.split("\\\\")
    return "\\".join(piece.replace("\\n", "\n").replace("\\t", "\t") for piece in pieces)


def file_documents(path: Path, delimiter: bytes | None) -> Iterator[Document]:
    """Yield the documents of one file: the whole file, or its parts between delimiters, without blank ones.

    Needs memory for one document at a time. A UTF-8 byte order mark is dropped.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or contains a document that is too long.
    """
    for offset, content in pieces(path, delimiter):
        if content.strip():
            yield document(str(path) if delimiter is None else f"{path}, at byte {offset}", content)


def pieces(path: Path, delimiter: bytes | None) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the bytes of each piece of a file. Raises DataError as `file_documents`."""
    for offset, content in _split(path, delimiter):
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_utf8(str(path), content[error.start], offset + error.start) from None
        yield offset, content


def _split(path: Path, delimiter: bytes | None) -> Iterator[tuple[int, bytes]]:
    offset, rest = 0, b""
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(READ_BYTES):
                if offset == 0 and not rest:
                    chunk, offset = _without_mark(path, chunk)
                rest += chunk
                *whole, rest = [rest] if delimiter is None else rest.split(delimiter)
                for piece in whole:
                    yield offset, piece
                    offset += len(piece) + len(delimiter or b"")
                if len(rest) > MAX_DOCUMENT_BYTES:
                    raise too_long(str(path) if delimiter is None else f"{path}, from byte {offset} on,")
    except OSError as error:
        raise unreadable(path, error) from None
    yield offset, rest


def _without_mark(path: Path, beginning: bytes) -> tuple[bytes, int]:
    """Return the beginning of a file without its UTF-8 mark, and the mark's length."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if beginning.startswith(mark):
            raise DataError(
                f"{path} is {encoding} (it begins with {mark.hex(' ')}), not UTF-8: "
                f"convert it with iconv -f {encoding} -t UTF-8"
            )
    n_mark = len(codecs.BOM_UTF8) if beginning.startswith(codecs.BOM_UTF8) else 0
    return beginning[n_mark:], n_mark
