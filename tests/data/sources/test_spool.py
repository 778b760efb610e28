"""Spools between two threads: every byte in order, bounded, on a disk that is full."""

import errno
import io
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.data.sources.spool import Spool


class Slow(io.BytesIO):
    """A stream that waits for `go` before its first byte, and records a size at every write."""

    def __init__(self, size: Callable[[], int]) -> None:
        super().__init__()
        self.go = threading.Event()
        self.size = size
        self.sizes: list[int] = []

    def write(self, data: object) -> int:
        self.go.wait(10)
        self.sizes.append(self.size())
        return super().write(data)  # type: ignore[arg-type]


def copied(spool: Spool, stream: io.BytesIO) -> threading.Thread:
    thread = threading.Thread(target=spool.copy_to, args=(stream,))
    thread.start()
    return thread


@pytest.mark.parametrize("capacity", [1, 7, 64, 10_000])
def test_bytes_arrive_in_order_for_any_capacity(tmp_path: Path, capacity: int) -> None:
    chance = random.Random(capacity)
    parts = [chance.randbytes(chance.randint(0, 40)) for _ in range(200)]
    spool, stream = Spool(tmp_path, capacity), io.BytesIO()
    thread = copied(spool, stream)
    for part in parts:
        spool.write(part)
    spool.close()
    thread.join(10)
    assert stream.getvalue() == b"".join(parts)
    assert list(tmp_path.iterdir()) == []


def test_a_full_spool_waits_and_its_file_does_not_grow(tmp_path: Path) -> None:
    spool, stream = Spool(tmp_path, 100), Slow(lambda: os.fstat(spool._file.fileno()).st_size)
    thread = copied(spool, stream)
    writer = threading.Thread(target=spool.write, args=(bytes(range(250)),))
    writer.start()
    time.sleep(0.1)
    assert writer.is_alive()
    stream.go.set()
    writer.join(10)
    spool.close()
    thread.join(10)
    assert stream.getvalue() == bytes(range(250))
    assert max(stream.sizes) == 100


def test_a_full_disk_leaves_a_smaller_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite

    def full_after_40_bytes(file: int, data: bytes, place: int) -> int:
        if place >= 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(file, data[: 40 - place], place)

    monkeypatch.setattr(os, "pwrite", full_after_40_bytes)
    spool, stream = Spool(tmp_path, 1000), io.BytesIO()
    thread = copied(spool, stream)
    spool.write(bytes(range(250)))
    spool.close()
    thread.join(10)
    assert stream.getvalue() == bytes(range(250))


def test_a_disk_without_any_space_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, data: bytes, place: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    spool = Spool(tmp_path, 1000)
    thread = copied(spool, io.BytesIO())
    with pytest.raises(OSError, match="No space left on device"):
        spool.write(b"text")
    spool.close()
    thread.join(10)
