"""Texts of a data set on the hub, read by several processes: each reads other files, ahead of their turn.

As a program: one of the readers; its argument is JSON with the data set's config and its files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Thread
from typing import Any

from sweep.config import HuggingFaceData, to_dict
from sweep.data.sources.hub_rows import Texts, cache_directory, file_texts, opened, texts
from sweep.data.sources.spool import Spool

MAX_READERS = 4
"""Processes that read a data set. A core reads a hundred megabytes of text a second, so that the network, or
the tokenizer, is slower than four."""

READER_TEXT = 2**26
"""Characters of text for each reader, at least: starting one takes seconds."""

MIN_READING = 0.25
"""Least share of the time that is spent on reading. Below it, the tokenizer is much slower than one reader,
and more do not help."""

SPOOL_BYTES = 2**30
"""Text that a reader keeps on the disk until it is that text's turn."""

COMMAND = (sys.executable, "-P", "-m", "sweep.data.sources.hub_readers")

Reader = subprocess.Popen[bytes] | None
"""A process that reads some files; None where the machine cannot start it."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """Counts of what was read of a data set so far, and the time that it took."""

    n_files: int = 0
    n_documents: int = 0
    n_characters: int = 0
    reading_s: float = 0.0  # seconds
    total_s: float = 0.0  # seconds, also those in which the texts were used

    def counted(self, found: Iterator[Texts]) -> Iterator[Texts]:
        """Yield and count texts, and the seconds spent on reading and on what is done with them."""
        asked = time.perf_counter()
        for batch in found:
            self.reading_s += time.perf_counter() - asked
            lengths = [len(text) for text in batch if text and not text.isspace()]
            self.n_documents += len(lengths)
            self.n_characters += sum(lengths)
            yield batch
            self.total_s += time.perf_counter() - asked
            asked = time.perf_counter()


def hub_texts(config: HuggingFaceData) -> Iterator[Texts]:
    """Yield the texts of a data set on the hub, in the order of its files and rows.

    The first files are read in this process. When they show that more are needed, how many, and that reading
    takes long, several processes read those; this process reads what one of them does not. Raises as
    `opened`.
    """
    with opened(config) as rows:
        if not config.streaming:
            yield from texts(rows, config)
            return
        progress = Progress()
        while progress.n_files < rows.num_shards:
            files, n_readers = _plan(progress, rows.num_shards, config.n_documents)
            with _started(config, rows, files, n_readers) as found:
                yield from progress.counted(found)
            progress.n_files = files.stop


def _plan(done: Progress, n_files: int, limit: int | None) -> tuple[range, int]:
    """Return the files to read next and the number of readers.

    Further files are expected to be like those read. None is read that `limit`, the number of documents
    wanted, does not need.
    """
    alone = range(done.n_files, done.n_files + 1), 1
    if not done.n_documents or done.reading_s < MIN_READING * done.total_s:
        return alone
    n_left = n_files - done.n_files
    if limit is not None:
        n_left = min(n_left, -(-(limit - done.n_documents) * done.n_files // done.n_documents))
    n_readers = min(MAX_READERS, n_left, n_left * done.n_characters // done.n_files // READER_TEXT)
    return (range(done.n_files, done.n_files + n_left), n_readers) if n_readers > 1 else alone


@contextmanager
def _started(config: HuggingFaceData, rows: Any, files: range, n_readers: int) -> Iterator[Iterator[Texts]]:
    """Yield the texts of files, read in this process or by several, which are ended on exit."""
    if n_readers == 1:
        yield (batch for file in files for batch in file_texts(rows, file, config))
        return
    with ExitStack() as stack:
        readers = [_start(config, files[number::n_readers], stack) for number in range(n_readers)]
        yield (
            batch
            for number, file in enumerate(files)
            for batch in _received(readers[number % n_readers], rows, file, config)
        )


def _start(config: HuggingFaceData, files: range, stack: ExitStack) -> Reader:
    """Start a process that reads files and is ended with the stack."""
    request = {"data": to_dict(config), "files": [files.start, files.stop, files.step]}
    try:
        reader = subprocess.Popen(
            [*COMMAND, json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # if it fails, this process reads its files and raises the error
            start_new_session=True,  # an interrupt is for this process, which ends its readers
        )
    except OSError:  # a limit of processes, or too little memory
        return None
    stack.enter_context(reader)
    stack.callback(reader.kill)
    return reader


def _received(reader: Reader, rows: Any, file: int, config: HuggingFaceData) -> Iterator[Texts]:
    """Yield the texts of the reader's next file, `file`.

    What a reader that has ended did not send is read in this process, which then raises the same error.
    """
    n_received = 0
    for line in () if reader is None else _lines(reader):
        message = json.loads(line)
        if message is None:
            return
        yield message
        n_received += 1
    yield from islice(file_texts(rows, file, config), n_received, None)


def _lines(reader: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield the complete lines that a reader writes."""
    assert reader.stdout is not None
    for line in reader.stdout:
        if line.endswith(b"\n"):
            yield line


# --- a reader ----------------------------------------------------------------------------------------


def _messages(config: HuggingFaceData, files: Sequence[int]) -> Iterator[Texts | None]:
    """Yield lists of texts, and None after each file."""
    with opened(config) as rows:
        for file in files:
            yield from file_texts(rows, file, config)
            yield None


def _send(spool: Spool) -> None:
    """Copy the spool to the standard output, and exit when the process that reads it has ended."""
    try:
        spool.copy_to(sys.stdout.buffer)
    except OSError:
        os._exit(1)


def main() -> None:
    """Write one message per line of the given files; at most `SPOOL_BYTES` of them wait to be read."""
    request = json.loads(sys.argv[1])
    spool = Spool(cache_directory(), SPOOL_BYTES)
    sender = Thread(target=_send, args=(spool,))
    sender.start()
    try:
        for message in _messages(HuggingFaceData(**request["data"]), range(*request["files"])):
            spool.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")
    finally:
        spool.close()
        sender.join()


if __name__ == "__main__":
    main()
