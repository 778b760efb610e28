"""Documents, identified by content hash; the hash decides the split and identifies duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from sweep.errors import DataError

HOLDOUT_RULE = "first 64 bits of sha256(content) < holdout_frac * 2**64"
"""Rule for held-out documents; part of every corpus hash, so that changing it changes the corpus."""

ALL_HELD_OUT = 1.0
"""`holdout_frac` of an evaluation set, which has no training split."""

SPACE_MARK = "\u2581"
"""SentencePiece's representation of a space (Kudo & Richardson 2018, section 3.3)."""

MAX_DOCUMENT_BYTES = 2**26
"""Limit for one document: a tokenizer needs about fifty times its size in memory."""

CHUNK_DOCUMENTS = 1024  # `distinct` looks up chunks of at most so many documents
CHUNK_BYTES = 2**20  # and about so many bytes of text


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text as its original UTF-8 bytes; build it with `document`."""

    name: str
    content: bytes
    sha256: str  # of the content


def document(name: str, content: bytes) -> Document:
    """Return a document with the hash of its content. Raises DataError when it is too long to tokenise."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise too_long(name)
    return Document(name=name, content=content, sha256=hashlib.sha256(content).hexdigest())


def place_of(document: Document, content: bytes) -> str | None:
    """Return the name of a document and the offset of `content` in it; None if it does not contain it."""
    offset = document.content.find(content)
    return f"{document.name}: offset {offset}" if offset >= 0 else None


def too_long(name: str) -> DataError:
    """Return the error for a document longer than `MAX_DOCUMENT_BYTES`."""
    return DataError(
        f"{name} is one document of more than {MAX_DOCUMENT_BYTES >> 20} MiB: split it into shorter "
        f"documents (data=text splits at data.delimiter); held-out text is chosen by document"
    )


def decoded(document: Document) -> str:
    """Return the document's text. Raises DataError with file and offset of a byte that is not UTF-8."""
    try:
        return document.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(document.name, document.content[error.start], error.start) from None


def not_utf8(name: str, byte: int, offset: int) -> DataError:
    """Return the error for a byte that is not valid UTF-8."""
    return DataError(
        f"{name}: byte {byte:#04x} at offset {offset} is not UTF-8 text: "
        f"convert the file, as with iconv -f LATIN1 -t UTF-8, or leave it out"
    )


def is_held_out(document: Document, holdout_frac: float) -> bool:
    """Return True if a document is held out, which depends only on the hash of its content.

    A document therefore stays in its split when others are added or removed, and equal texts share a split.
    """
    return int(document.sha256[:16], 16) < holdout_frac * 2**64


@dataclass(kw_only=True, slots=True)
class Dropped:
    """Counts of what is left out of a corpus."""

    n_copies: int = 0  # documents equal to an earlier one
    n_blank: int = 0  # rows or parts of files without text


def distinct(
    documents: Iterable[Document], dropped: Dropped | None = None, seen: Seen | None = None
) -> Iterator[Document]:
    """Yield the documents in order without duplicates of earlier ones; about ten bytes of memory for each.

    `dropped` counts the duplicates. Documents whose keys are in `seen` are duplicates, too; the others are
    added to it.

    Documents are compared by 64 bits of their hash, so among n documents the probability that a distinct one
    is dropped is n² / 2⁶⁵: 3e-8 for a million.

    >>> [found.name for found in distinct([document("a", b"x"), document("b", b"x"), document("c", b"y")])]
    ['a', 'c']
    """
    seen = Seen() if seen is None else seen
    for chunk in chunks(documents, CHUNK_BYTES, CHUNK_DOCUMENTS):
        keys = np.array([int(found.sha256[16:32], 16) for found in chunk], dtype=np.uint64)
        is_new = seen.add(keys)
        if dropped is not None:
            dropped.n_copies += len(chunk) - int(is_new.sum())
        yield from compress(chunk, is_new.tolist())


def chunks(documents: Iterable[Document], n_bytes: int, n_documents: int = 2**31) -> Iterator[list[Document]]:
    """Yield lists of consecutive documents, of about `n_bytes` in total and at most `n_documents`."""
    chunk: list[Document] = []
    size = 0
    for found in documents:
        chunk.append(found)
        size += len(found.content)
        if size >= n_bytes or len(chunk) >= n_documents:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class Seen:
    """Set of 64-bit keys at 8 bytes each: sorted arrays, each more than twice as long as the next."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.uint64]] = []

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add the keys; return a mask of the new ones, shape (len(keys),). Of equal keys the first is new."""
        unique, first = np.unique(keys, return_index=True)
        known = np.zeros(len(unique), dtype=bool)
        for array in self._arrays:
            places = np.searchsorted(array, unique)
            known |= array[np.minimum(places, len(array) - 1)] == unique
        is_new = np.zeros(len(keys), dtype=bool)
        is_new[first[~known]] = True
        self._merge(unique[~known])
        return is_new

    def _merge(self, keys: NDArray[np.uint64]) -> None:
        while self._arrays and len(self._arrays[-1]) <= 2 * len(keys):
            keys = np.sort(np.concatenate([self._arrays.pop(), keys]), kind="stable")
        if len(keys):
            self._arrays.append(keys)
