"""Recognition of file formats by their first bytes, and reading of text through gzip and zstd."""

from __future__ import annotations

import codecs
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Literal

from sweep.data.sources.source import unreadable
from sweep.errors import DataError
from sweep.formats import ARROW, GZIP, PARQUET, UNREADABLE, ZSTD, unreadable_format

Kind = Literal["text", "gzip", "zstd", "parquet", "arrow"]
"""The content of a file that can be read; "text" is everything that is not recognised as something else."""

HEAD_BYTES = 1024  # enough for every signature, and for UTF-16 without a byte order mark
FIRST_BYTES = 2**16  # read at once, because most text files are smaller

READABLE: tuple[tuple[bytes, Kind], ...] = (
    (GZIP, "gzip"),
    *((signature, "zstd") for signature in ZSTD),
    (PARQUET, "parquet"),
    *((signature, "arrow") for signature in ARROW),
)
"""First bytes of formats that can be read."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # first, because it starts with the UTF-16 mark
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""First bytes of text in other encodings (Unicode 16.0, section 23.8)."""

SIGNATURES = (
    *BYTE_ORDER_MARKS,
    *(signature for signature, _ in UNREADABLE),
    *(signature for signature, _ in READABLE),
)

MIN_NUL_SHARE = 0.4  # of every second byte, in UTF-16 text of mostly Latin letters


def kind_of(path: Path) -> Kind:
    """Return the format of a file's content. Raises DataError when it cannot be read, with a remedy."""
    try:
        with _open(path) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    return _kind(path, head)


def text_chunks(path: Path | str, n_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the content of consecutive parts of a text file, of at most `n_bytes` each.

    A file compressed with gzip or zstd is decompressed, and offsets are those in its text. A UTF-8 byte order
    mark is dropped.

    Raises:
        DataError: The file cannot be read, is damaged, or is not UTF-8 text as far as its first bytes show.
    """
    kind: Kind = "text"
    try:
        with _open(path) as stream:
            head = stream.read(FIRST_BYTES)
            kind = _kind(path, head)
            if kind in ("parquet", "arrow"):
                raise DataError(
                    f"{path} is a file in {kind.capitalize()} format, not text: read it with "
                    f"data=huggingface data.dataset={path} data.column=COLUMN"
                )
            if kind == "text":
                yield from _chunks(stream, head, n_bytes)
                return
        with closing(_decompressed(path, kind)) as stream:
            head = _read(stream, HEAD_BYTES)
            if (inner := _kind(path, head)) != "text":
                raise DataError(f"{path} holds a {inner} file compressed with {kind}: decompress it first")
            yield from _chunks(stream, head, n_bytes)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        raise DataError(
            f"{path} is damaged or incomplete ({kind}: {error}): download or write it again"
        ) from None


def _chunks(stream: IO[bytes], head: bytes, n_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the content of consecutive parts of a text after its first bytes, `head`."""
    offset = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    head = head[offset:]
    for first in range(0, len(head), n_bytes):
        yield offset + first, head[first : first + n_bytes]
    offset += len(head)
    while chunk := stream.read(n_bytes):
        yield offset, chunk
        offset += len(chunk)


def read_text(path: Path) -> bytes:
    """Return a small text file's content as `text_chunks` reads it. Raises DataError."""
    return b"".join(chunk for _, chunk in text_chunks(path, 2**20))


def _open(path: Path | str) -> IO[bytes]:
    """Open a regular file. Raises DataError for a pipe or device, which can be read only once."""
    mode = os.stat(path).st_mode  # noqa: PTH116  # a Path costs more than reading a small file
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{path} is a pipe or device, which cannot be read twice: write it to a file")
    return open(path, "rb", buffering=0)  # noqa: PTH123


def _decompressed(path: Path | str, kind: Kind) -> IO[bytes]:
    if kind == "gzip":
        return gzip.open(path)  # type: ignore[return-value]
    import pyarrow  # type: ignore[import-untyped]  # slow to import

    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")  # type: ignore[no-any-return]


def _read(stream: IO[bytes], n_bytes: int) -> bytes:
    """Read `n_bytes` from a stream that may return fewer at a time."""
    content = b""
    while len(content) < n_bytes and (chunk := stream.read(n_bytes - len(content))):
        content += chunk
    return content


def _kind(path: Path | str, head: bytes) -> Kind:
    head = head[:HEAD_BYTES]
    if not head.startswith(SIGNATURES) and b"\0" not in head:
        return "text"
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            raise _not_utf8(path, f"begins with {mark.hex(' ')}", encoding, encoding)
    if (description := unreadable_format(head)) is not None:
        raise DataError(f"{path} is {description}")
    for signature, kind in READABLE:
        if head.startswith(signature):
            return kind
    if (order := _utf32_order(head)) is not None:
        raise _not_utf8(path, "has three bytes 0 at every fourth place", "UTF-32", f"UTF-32{order}")
    order = _utf16_order(head)
    if order is not None:
        raise _not_utf8(path, "has a byte 0 at every second place", "UTF-16", f"UTF-16{order}")
    return "text"


def _utf32_order(head: bytes) -> Literal["LE", "BE"] | None:
    """Return the byte order of UTF-32 text without a byte order mark; None for anything else."""
    quarter = len(head) // 4
    n_zeros = [head[place::4].count(0) for place in range(4)]
    if quarter < 2 or min(n_zeros[1:3]) < MIN_NUL_SHARE * quarter:
        return None
    if (n_zeros[0] == 0) == (n_zeros[3] == 0):
        return None
    return "LE" if n_zeros[0] == 0 else "BE"


def _utf16_order(head: bytes) -> Literal["LE", "BE"] | None:
    """Return the byte order of UTF-16 text without a byte order mark; None for anything else."""
    half = len(head) // 2
    n_even, n_odd = head[0::2].count(0), head[1::2].count(0)
    if half < 4 or min(n_even, n_odd) > MIN_NUL_SHARE * half:
        return None
    if max(n_even, n_odd) <= MIN_NUL_SHARE * half:
        return None
    return "LE" if n_odd > n_even else "BE"


def _not_utf8(path: Path | str, evidence: str, encoding: str, name: str) -> DataError:
    return DataError(
        f"{path} is {encoding} (it {evidence}), not UTF-8: convert it with iconv -f {name} -t UTF-8"
    )
