"""Parts of a corpus, encoded in turns so that their tokens have given weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from numpy.typing import NDArray

from sweep.data.documents import Document, Dropped, Seen, chunks, distinct
from sweep.errors import DataError

READ_BYTES = 2**22
"""Text of a part that is read at once, and once more in advance. It decides which of two equal documents of
different parts is kept."""

ENCODE_BYTES = 2**20
"""Text per call of the tokenizer: bounds memory, and keeps all cores busy."""

ENCODE_CALLS = 2
"""Calls of the tokenizer at a time: one keeps the cores busy while the ids of the other are converted."""

Ids = NDArray[Any]
"""Ids of a document and its separator."""

Encode = Callable[[Sequence[Document]], Sequence[Ids]]
"""Returns the ids of each document. Raises DataError for text that cannot be encoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Documents that a corpus takes with a given weight; a corpus that is no mixture has one part."""

    name: str
    weight: float
    read: Callable[[], Iterator[Document]]


class PartStream:
    """The documents of one part and their ids. A chunk is encoded in the background while it is taken."""

    def __init__(self, documents: Iterator[Document], encode: Encode, background: Executor) -> None:
        self._chunks = chunks(documents, READ_BYTES)
        self._encode = encode
        self._background = background
        self._documents: deque[Document] = deque()
        self._encoded: deque[Future[Sequence[Ids]]] = deque()
        self._ids: deque[Ids] = deque()

    def skip(self) -> Document | None:
        """Return the next document without its ids; None at the end. Only valid before the first `take`."""
        return self._documents.popleft() if self._fill() else None

    def take(self) -> tuple[Document, Ids] | None:
        """Return the next document and its ids; None at the end. Raises DataError for invalid text."""
        if not self._fill():
            return None
        if not self._ids:
            if not self._encoded:
                pieces = chunks(self._documents, ENCODE_BYTES)
                self._encoded.extend(self._background.submit(self._encode, one) for one in pieces)
            self._ids.extend(self._encoded.popleft().result())
        return self._documents.popleft(), self._ids.popleft()

    def _fill(self) -> bool:
        if not self._documents:
            self._documents.extend(next(self._chunks, ()))
        return bool(self._documents)


@contextmanager
def _threads(number: int) -> Iterator[Executor]:
    """Yield an executor of `number` threads; calls that have not begun at the end are cancelled."""
    executor = ThreadPoolExecutor(number)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _read_ahead(documents: Iterator[Document], background: Executor) -> Iterator[Document]:
    """Yield the documents in order, while `background` reads the next `READ_BYTES` of them."""
    return chain.from_iterable(_ahead(chunks(documents, READ_BYTES), background))


def _ahead(read: Iterator[list[Document]], background: Executor) -> Iterator[list[Document]]:
    end: list[Document] = []
    found = background.submit(next, read, end)
    while chunk := found.result():
        found = background.submit(next, read, end)
        yield chunk


def in_turns(
    parts: Sequence[Part],
    encode: Encode,
    done: Iterable[int],
    n_tokens: Sequence[int],
    dropped: Dropped,
) -> Generator[tuple[int, Document, Ids | None], None, None]:
    """Yield the part, the document and the ids of each document of a corpus, in its order.

    The next document is that of the part with the fewest tokens over weight, the first of several, until that
    part has no more; the tokens of two parts then differ from their weights by less than one document. A
    document that an earlier one of another part equals is left out, and counted in `dropped`.

    `done` holds the parts of the documents that were encoded before: they are yielded first, with None as
    ids. `n_tokens` are the tokens that each part had then, separators included.

    Raises DataError when there are fewer documents than `done`, or one cannot be encoded.
    """
    with _threads(1) as reader, _threads(ENCODE_CALLS) as encoder:
        seen = Seen()
        texts = [_read_ahead(part.read(), reader) for part in parts]
        if len(parts) > 1:
            texts = [distinct(text, dropped, seen) for text in texts]
        streams = [PartStream(text, encode, encoder) for text in texts]
        for number in done:
            skipped = streams[number].skip()
            if skipped is None:
                raise corpus_changed()
            yield number, skipped, None
        totals = list(n_tokens)
        while True:
            number = min(range(len(parts)), key=lambda part: totals[part] / parts[part].weight)
            taken = streams[number].take()
            if taken is None:
                return
            document, ids = taken
            totals[number] += len(ids)
            yield number, document, ids


def corpus_changed() -> DataError:
    """Return the error for a corpus that changed during its preparation."""
    return DataError(
        "the corpus changed while it was prepared: repeat the command to prepare its current text"
    )
