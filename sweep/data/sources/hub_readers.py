"""Texts of a data set on the hub, read by several processes: each reads other files, ahead of their turn.

As a program: one of the readers; its argument is JSON with the data set's config and its files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any

from sweep.config import HuggingFaceData, to_dict
from sweep.data.sources.hub_rows import Texts, cache_directory, file_texts, opened, texts
from sweep.data.sources.spool import Spool
from sweep.errors import DataError, DataInterrupted, InputError, SweepError

MAX_READERS = 4
"""Processes that read a data set. A core reads a hundred megabytes of text a second, so that the network, or
the tokenizer, is slower than four."""

READER_TEXT = 2**26
"""Characters of text for each reader, at least: starting one takes seconds."""

SPOOL_BYTES = 2**30
"""Text that a reader keeps on the disk until it is that text's turn."""

COMMAND = (sys.executable, "-P", "-m", "sweep.data.sources.hub_readers")

Reader = subprocess.Popen[bytes]

_ERRORS = {error.__name__: error for error in (DataError, DataInterrupted, InputError)}


def hub_texts(config: HuggingFaceData) -> Iterator[Texts]:
    """Yield the texts of a data set on the hub, in the order of its files and rows.

    The first files are read in this process. When they show that more are needed, and how many, several
    processes read those. Raises as `opened`.
    """
    with opened(config) as rows:
        if not config.streaming:
            yield from texts(rows, config)
            return
        n_files, n_documents, n_characters = rows.num_shards, 0, 0
        file = 0
        while file < n_files:
            wanted, n_readers = _plan(config.n_documents, n_files, file, n_documents, n_characters)
            with _started(config, rows, wanted, n_readers) as found:
                for batch in found:
                    lengths = [len(text) for text in batch if text and not text.isspace()]
                    n_documents += len(lengths)
                    n_characters += sum(lengths)
                    yield batch
            file = wanted.stop


def _plan(
    limit: int | None, n_files: int, n_read: int, n_documents: int, n_characters: int
) -> tuple[range, int]:
    """Return the files to read next and the number of readers, from what the first `n_read` files contained.

    Further files are expected to be like those. None is read that `limit`, the number of documents wanted,
    does not need.
    """
    alone = range(n_read, n_read + 1), 1
    if not n_documents:
        return alone
    n_left = n_files - n_read
    if limit is not None:
        n_left = min(n_left, -(-(limit - n_documents) * n_read // n_documents))
    n_readers = min(MAX_READERS, n_left, n_left * n_characters // n_read // READER_TEXT)
    return (range(n_read, n_read + n_left), n_readers) if n_readers > 1 else alone


@contextmanager
def _started(config: HuggingFaceData, rows: Any, files: range, n_readers: int) -> Iterator[Iterator[Texts]]:
    """Yield the texts of files, read in this process or by several, which are ended on exit."""
    if n_readers == 1:
        yield (batch for file in files for batch in file_texts(rows, file, config))
        return
    with ExitStack() as stack:
        readers: list[Reader] = []
        for number in range(n_readers):
            readers.append(stack.enter_context(_start(config, files[number::n_readers])))
            stack.callback(readers[-1].kill)
        yield (
            batch for number in range(len(files)) for batch in _received(readers[number % n_readers], config)
        )


def _start(config: HuggingFaceData, files: range) -> Reader:
    request = {"data": to_dict(config), "files": [files.start, files.stop, files.step]}
    return subprocess.Popen(
        [*COMMAND, json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # an interrupt is for this process, which ends its readers
    )


def _received(reader: Reader, config: HuggingFaceData) -> Iterator[Texts]:
    """Yield the texts of the reader's next file. Raises what the reader raised."""
    assert reader.stdout is not None
    for line in reader.stdout:
        if not line.endswith(b"\n"):
            break
        message = json.loads(line)
        if message is None:
            return
        if isinstance(message, dict):
            raise _ERRORS[message["error"]](message["message"])
        yield message
    raise DataInterrupted(
        f"data.dataset={config.dataset}: a process that read it ended with status {reader.wait()}: finished "
        f"work is kept, repeat the command to resume"
    )


# --- a reader ----------------------------------------------------------------------------------------


def _messages(config: HuggingFaceData, files: Sequence[int]) -> Iterator[Any]:
    """Yield lists of texts, None after each file, and an error as a dict."""
    try:
        with opened(config) as rows:
            for file in files:
                yield from file_texts(rows, file, config)
                yield None
    except SweepError as error:
        yield {"error": type(error).__name__, "message": str(error)}


def _send(spool: Spool) -> None:
    """Copy the spool to the standard output, and exit when the process that reads it has ended."""
    try:
        spool.copy_to(sys.stdout.buffer)
    except OSError:
        os._exit(1)


def main() -> None:
    """Read the given files and write one message per line, up to `SPOOL_BYTES` ahead of who reads them."""
    request = json.loads(sys.argv[1])
    directory = cache_directory()
    spool = Spool(directory, SPOOL_BYTES)
    sender = Thread(target=_send, args=(spool,))
    sender.start()
    try:
        for message in _messages(HuggingFaceData(**request["data"]), range(*request["files"])):
            spool.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        sys.exit(f"{directory} cannot be written ({error.strerror})")
    finally:
        spool.close()
        sender.join()


if __name__ == "__main__":
    main()
