"""Token ids on disk: raw little-endian integers in shards, read as one memory-mapped sequence."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import ConfigDict

from sweep.errors import DataError

Dtype = Literal["uint16", "uint32", "int64"]

BUFFER_TOKENS = 2**18  # per write: few system calls, little memory


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayFile:
    """A one-dimensional array in its own file: raw little-endian items without a header."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    file: str  # relative to the manifest's directory
    dtype: Dtype
    n_items: int
    sha256: str  # of the file's bytes

    @property
    def n_bytes(self) -> int:
        """Size of the file in bytes."""
        return self.n_items * np.dtype(self.dtype).itemsize


def token_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """Return the smaller of the two types that can represent every id.

    >>> token_dtype(65_536), token_dtype(65_537)
    ('uint16', 'uint32')
    """
    return "uint16" if vocab_size <= 2**16 else "uint32"


def write_array(directory: Path, file: str, values: NDArray[Any], dtype: Dtype) -> ArrayFile:
    """Write an array to its own file and sync it to the disk."""
    data = values.astype(_little_endian(dtype)).tobytes()
    write_durably(directory / file, data)
    return ArrayFile(file=file, dtype=dtype, n_items=len(values), sha256=hashlib.sha256(data).hexdigest())


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and sync it to the disk."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def array_file(path: Path, dtype: Dtype) -> ArrayFile:
    """Describe an array file that was written incrementally."""
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    n_items = path.stat().st_size // np.dtype(dtype).itemsize
    return ArrayFile(file=path.name, dtype=dtype, n_items=n_items, sha256=sha256)


def open_array(directory: Path, array: ArrayFile) -> NDArray[Any]:
    """Memory-map an array, shape (n_items,).

    Raises:
        DataError: The file is missing or its size differs from the manifest.
    """
    path = directory / array.file
    if not path.is_file():
        raise DataError(f"{path} not found: delete {directory} and prepare the data again")
    size = path.stat().st_size
    if size != array.n_bytes:
        raise DataError(
            f"{path} has {size} bytes, its manifest says {array.n_bytes}: the file is truncated or "
            f"changed, delete {directory} and prepare the data again"
        )
    if not array.n_items:
        return np.empty(0, dtype=_little_endian(array.dtype))
    return np.asarray(np.memmap(path, dtype=_little_endian(array.dtype), mode="r"))


def verify_array(directory: Path, array: ArrayFile) -> None:
    """Check the SHA-256 of a file. Raises DataError if it differs from the manifest."""
    open_array(directory, array)
    path = directory / array.file
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != array.sha256:
        raise DataError(
            f"{path} has SHA-256 {found[:16]}…, its manifest says {array.sha256[:16]}…: the file is damaged, "
            f"delete {directory} and prepare the data again"
        )


def _little_endian(dtype: Dtype) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


class TokenWriter:
    """Appends one split to numbered shards of at most `max_shard_tokens` tokens each.

    Writing can stop after any sync and be resumed from there by another process.
    """

    def __init__(
        self, directory: Path, split: str, vocab_size: int, max_shard_tokens: int, n_tokens: int = 0
    ) -> None:
        """Resume after the first `n_tokens` and drop everything written after them.

        Raises ValueError when the files contain fewer tokens.
        """
        self._directory = directory
        self._split = split
        self._max_shard_tokens = max_shard_tokens
        self._dtype = token_dtype(vocab_size)
        self._pending: list[NDArray[Any]] = []
        self._n_pending = 0
        self._n_written = n_tokens
        self._unsynced: set[Path] = set()
        self._cut(n_tokens)

    def append(self, ids: NDArray[Any]) -> None:
        """Append ids, which are inside the vocabulary."""
        self._pending.append(ids.astype(_little_endian(self._dtype), copy=False))
        self._n_pending += len(ids)
        if self._n_pending >= BUFFER_TOKENS:
            self._write()

    def sync(self) -> None:
        """Write everything appended to the disk and sync it."""
        self._write()
        while self._unsynced:
            with self._unsynced.pop().open("rb") as stream:
                os.fsync(stream.fileno())

    def finish(self) -> tuple[ArrayFile, ...]:
        """Sync and return the shards in order."""
        self.sync()
        shards = range(-(-self._n_written // self._max_shard_tokens))
        return tuple(array_file(self._path(shard), self._dtype) for shard in shards)

    def _write(self) -> None:
        ids = np.concatenate([np.empty(0, _little_endian(self._dtype)), *self._pending])
        self._pending, self._n_pending = [], 0
        while len(ids):
            shard, n_there = divmod(self._n_written, self._max_shard_tokens)
            part, ids = np.split(ids, [self._max_shard_tokens - n_there])
            path = self._path(shard)
            with path.open("ab") as stream:
                stream.write(part.tobytes())
            self._unsynced.add(path)
            self._n_written += len(part)

    def _path(self, shard: int) -> Path:
        return self._directory / f"{self._split}-{shard:05d}.bin"

    def _cut(self, n_tokens: int) -> None:
        """Truncate the existing shards to `n_tokens` in total."""
        n_shards = -(-n_tokens // self._max_shard_tokens)
        for shard in range(n_shards):
            n_here = min(self._max_shard_tokens, n_tokens - shard * self._max_shard_tokens)
            cut(self._path(shard), n_here * np.dtype(self._dtype).itemsize)
        for path in self._directory.glob(f"{self._split}-[0-9]*.bin"):
            if path not in map(self._path, range(n_shards)):
                path.unlink()


def cut(path: Path, n_bytes: int) -> None:
    """Truncate a file to `n_bytes`. Raises ValueError when it is shorter."""
    if not path.is_file() or path.stat().st_size < n_bytes:
        raise ValueError(f"{path} has fewer than {n_bytes} bytes")
    os.truncate(path, n_bytes)


class Tokens:
    """The tokens of one split as a single sequence across its shards."""

    def __init__(self, shards: Sequence[NDArray[Any]]) -> None:
        self._shards = [shard for shard in shards if len(shard)]
        self._bounds = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self._sliding: dict[int, list[NDArray[Any]]] = {}

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return tokens start..stop-1, shape (stop - start,)."""
        parts = [
            shard[max(0, start - first) : max(0, stop - first)]
            for shard, first in zip(self._shards, self._bounds[:-1].tolist(), strict=True)
        ]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)

    def windows(self, starts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """Return a new array of the `width` tokens from each start, shape (len(starts), width)."""
        sliding = self._sliding.get(width) or self._slide(width)
        if len(sliding) == 1:
            return sliding[0][starts].astype(np.int64)
        shards = np.searchsorted(self._bounds, starts, side="right") - 1
        offsets = starts - self._bounds[shards]
        found = np.empty((len(starts), width), np.int64)
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero((shards == shard) & (offsets < len(sliding[shard])))
            found[rows] = sliding[shard][offsets[rows]]
        # windows that span two or more shards
        for row in np.flatnonzero(starts + width > self._bounds[shards + 1]).tolist():
            found[row] = self.read(int(starts[row]), int(starts[row]) + width)
        return found

    def release(self) -> None:
        """Drop pages of the files from this process's memory; they are read again when they are needed."""
        for shard in self._shards:
            mapped = getattr(shard.base, "base", None)
            if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def _slide(self, width: int) -> list[NDArray[Any]]:
        """Return all windows of each shard as a view, shape (n, width): one gather then copies a batch."""
        self._sliding[width] = [
            sliding_window_view(shard, width) if len(shard) >= width else np.empty((0, width), shard.dtype)
            for shard in self._shards
        ]
        return self._sliding[width]
