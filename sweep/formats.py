"""Formats of files that are not text, recognised by their first bytes, with the tool that helps."""

from __future__ import annotations

GZIP = b"\x1f\x8b"  # RFC 1952, section 2.3.1
ZSTD = (
    b"\x28\xb5\x2f\xfd",  # RFC 8878, section 3.1.1
    *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)),  # skippable frames, section 3.1.2
)
PARQUET = b"PAR1"
ARROW = (b"ARROW1\x00\x00", b"\xff\xff\xff\xff")  # the file format, and the stream that save_to_disk writes

UNREADABLE = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file: run git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the file: run git annex get"),
    (b"\xfd7zXZ\x00", "compressed with xz: decompress it with xz -d"),
    (b"BZh", "compressed with bzip2: decompress it with bzip2 -d"),
    (b"\x04\x22\x4d\x18", "compressed with lz4: decompress it with lz4 -d"),
    (b"PK\x03\x04", "a zip archive: unpack it with unzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it with 7z x"),
    (b"%PDF-", "a PDF document: extract its text with pdftotext"),
    (b"SQLite format 3\x00", "an SQLite database: export its text with sqlite3 -csv"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file: export its text to Parquet or JSON Lines"),
    (b"Rar!\x1a\x07", "a rar archive: unpack it with unrar x"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed with snappy: decompress it with snzip -d"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office: save it as text or CSV"),
    (b"\x93NUMPY", "a NumPy array: export its text to Parquet or JSON Lines"),
    (b"FEA1\x00", "in version 1 of the Feather format: write it again as Parquet"),
    *(
        (b"\x80" + bytes([protocol]), "a pickle, which may run code when read: export its text to Parquet")
        for protocol in range(2, 6)
    ),
)
"""First bytes of formats that cannot be read, with what the file is and the tool that helps."""

TAR, TAR_OFFSET = b"ustar", 257  # POSIX.1-1988 and GNU


def unreadable_format(head: bytes) -> str | None:
    """Return the format of a file that cannot be read, with the tool that helps; None for any other."""
    for signature, description in UNREADABLE:
        if head.startswith(signature):
            return description
    if head[TAR_OFFSET:].startswith(TAR):
        return "a tar archive: unpack it with tar -xf"
    if head[5:10] == b'\0\0\0{"':  # the length of a header in JSON, 8 bytes, and the header
        return "a safetensors file, which holds weights: choose a file of text"
    return None


def is_markup(head: bytes) -> bool:
    """Return True for HTML and XML, which a server may send in place of a file."""
    return head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body"))


MARKUP = "HTML or XML, perhaps the error page of a server: download it again"
