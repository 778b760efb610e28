"""A byte stream between two threads, kept on the disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from threading import Condition
from typing import BinaryIO

COPY_BYTES = 2**20


class Spool:
    """Bytes written by one thread and not yet read by another: a ring of at most `capacity` bytes in a file.

    The file has no name, so that nothing is left of a killed process.
    """

    def __init__(self, directory: Path, capacity: int) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  # closed by `copy_to`
        self._capacity = capacity
        self._start = self._end = 0  # of the unread bytes, counted from the last time that there were none
        self._is_closed = False
        self._changed = Condition()

    def write(self, data: bytes) -> None:
        """Append bytes, and wait while the spool is full. Raises OSError when nothing can be written."""
        rest = memoryview(data)
        while rest:
            with self._changed:
                self._changed.wait_for(lambda: self._end - self._start < self._capacity)
                if self._start == self._end:
                    self._start = self._end = 0  # the file stays small while the other thread keeps up
                place = self._end % self._capacity
                n_free = min(self._capacity - (self._end - self._start), self._capacity - place)
            try:
                n_written = os.pwrite(self._file.fileno(), rest[:n_free], place)
            except OSError:
                if place == 0:
                    raise
                with self._changed:  # the disk is full: go on in what the file has of it
                    self._changed.wait_for(lambda: self._start == self._end)
                continue
            rest = rest[n_written:]
            with self._changed:
                self._end += n_written
                self._changed.notify()

    def close(self) -> None:
        """End the stream; bytes that are unread can still be copied."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def copy_to(self, stream: BinaryIO) -> None:
        """Write all bytes to a stream until the spool is closed and empty. Raises OSError of the stream."""
        with self._file:
            while n_bytes := self._wait():
                place = self._start % self._capacity
                stream.write(os.pread(self._file.fileno(), min(n_bytes, self._capacity - place), place))
                stream.flush()
                with self._changed:
                    self._start += min(n_bytes, self._capacity - place)
                    self._changed.notify()

    def _wait(self) -> int:
        """Return the number of bytes to copy next; 0 at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._start < self._end or self._is_closed)
            return min(self._end - self._start, COPY_BYTES)
