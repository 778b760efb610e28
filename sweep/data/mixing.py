"""Parts of a corpus, encoded in turns so that their tokens have given weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.data.documents import Document, Dropped, Seen, chunks, distinct
from sweep.data.tokenizers.tokenizers import Tokenizer
from sweep.errors import DataError

ENCODE_BYTES = 2**20
"""Text of a part per call of the tokenizer: bounds memory, and keeps all cores busy. It decides which of two
equal documents of different parts is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Documents that a corpus takes with a given weight; a corpus that is no mixture has one part."""

    name: str
    weight: float
    read: Callable[[], Iterator[Document]]


class PartStream:
    """The documents of one part and their ids, tokenised one chunk at a time."""

    def __init__(self, documents: Iterable[Document], tokenizer: Tokenizer) -> None:
        self._chunks = chunks(documents, ENCODE_BYTES)
        self._tokenizer = tokenizer
        self._documents: deque[Document] = deque()
        self._ids: deque[NDArray[np.int64]] = deque()

    def skip(self) -> Document | None:
        """Return the next document without its ids; None at the end. Only valid before the first `take`."""
        return self._documents.popleft() if self._fill() else None

    def take(self) -> tuple[Document, NDArray[np.int64]] | None:
        """Return the next document and its ids; None at the end. Raises DataError for invalid text."""
        if not self._fill():
            return None
        if not self._ids:
            self._ids.extend(self._tokenizer.encode(list(self._documents)))
        return self._documents.popleft(), self._ids.popleft()

    def _fill(self) -> bool:
        if not self._documents:
            self._documents.extend(next(self._chunks, ()))
        return bool(self._documents)


def in_turns(
    parts: Sequence[Part],
    tokenizer: Tokenizer,
    done: Iterable[int],
    n_tokens: Sequence[int],
    dropped: Dropped,
) -> Iterator[tuple[int, Document, NDArray[np.int64] | None]]:
    """Yield the part, the document and the ids of each document of a corpus, in its order.

    The next document is that of the part with the fewest tokens over weight, the first of several, until that
    part has no more; the tokens of two parts then differ from their weights by less than one document. A
    document that an earlier one of another part equals is left out, and counted in `dropped`.

    `done` holds the parts of the documents that were encoded before: they are yielded first, with None as
    ids. `n_tokens` are the tokens that each part had then, separators included.

    Raises DataError when there are fewer documents than `done`, or one cannot be encoded.
    """
    seen = Seen()
    streams = [
        PartStream(part.read() if len(parts) == 1 else distinct(part.read(), dropped, seen), tokenizer)
        for part in parts
    ]
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
        totals[number] += len(ids) + 1
        yield number, document, ids


def corpus_changed() -> DataError:
    """Return the error for a corpus that changed during its preparation."""
    return DataError(
        "the corpus changed while it was prepared: repeat the command to prepare its current text"
    )
