"""Difficulty of documents: their cross-entropy under a bigram model of the training split.

It predicts most of the differences between documents in the loss of a trained model, so that held-out windows
can be stratified by it: a few tables, licences or generated files then count by their share of the training
text, and not by their share of the few held-out documents.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.data.token_files import Tokens
from sweep.errors import DataError
from sweep.identity import canonical_json

FILE = "difficulty-1.json"
"""File in a directory of prepared data; another way to measure difficulty needs another name."""

SAMPLE_TOKENS = 2**21  # of the training split, in blocks spread over it: bounds time and memory
BLOCK_TOKENS = 2**13
BLOCKS_AT_ONCE = 16
CHUNK_TOKENS = 2**17  # scored at once: bounds memory, and sorts within the processor's cache
PRIOR_TOKENS = 20.0  # weight of the unigram frequencies in those after each token

IntArray = NDArray[np.int64]
SmallArray = NDArray[np.int32]  # ids and documents of the sample, which is kept while it is scored
AnyInts = NDArray[np.int32] | NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Difficulty:
    """Difficulty of the held-out documents, and its distribution over the training text.

    In thousandths of a nat per token: whole numbers make the selection of windows exact on every machine.
    """

    heldout: IntArray  # (n_documents,), in the order of the split
    train: IntArray  # (n_values,), ascending
    train_tokens: IntArray  # (n_values,): sampled training tokens of documents with that difficulty


def measure_difficulty(
    train: Tokens, heldout: Tokens, document_ends: IntArray, *, vocab_size: int, separator: int
) -> Difficulty:
    """Return the difficulty of all held-out documents and of a sample of the training text.

    P(t | c) = (n(c, t) + PRIOR_TOKENS · P(t)) / (n(c) + PRIOR_TOKENS), with n counted in the sample; a
    training document's own tokens are left out of the counts that score it.
    """
    contexts, targets, documents = _sample(train, separator)
    model = _Bigrams(contexts, targets, vocab_size)
    sizes = np.bincount(documents)
    sums = np.zeros(len(sizes))
    for chunk in _whole_documents(documents):
        owners = documents[chunk]
        np.add.at(sums, owners, model.own_losses(contexts[chunk], targets[chunk], owners))
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    distinct, index = np.unique(_thousandths(sums / sizes), return_inverse=True)
    return Difficulty(
        heldout=_of_heldout(model, heldout, document_ends),
        train=distinct,
        train_tokens=np.bincount(index.reshape(-1), weights=sizes).astype(np.int64),
    )


def _of_heldout(model: _Bigrams, heldout: Tokens, document_ends: IntArray) -> IntArray:
    """Return the difficulty of each held-out document."""
    sums = np.zeros(len(document_ends))
    for first in range(1, len(heldout), CHUNK_TOKENS):
        stop = min(first + CHUNK_TOKENS, len(heldout))
        ids = heldout.read(first - 1, stop)
        documents = np.searchsorted(document_ends, np.arange(first, stop), side="right")
        np.add.at(sums, documents, model.losses(ids[:-1], ids[1:]))
        heldout.release()
    return _thousandths(sums / np.diff(document_ends, prepend=0))


def _sample(train: Tokens, separator: int) -> tuple[SmallArray, SmallArray, SmallArray]:
    """Return contexts, targets and the document of each target, in blocks spread over the training split."""
    width = min(BLOCK_TOKENS, len(train) - 1)
    n_there = (len(train) - 1) // width
    n_blocks = min(n_there, max(1, SAMPLE_TOKENS // width))
    starts = np.arange(n_blocks) * n_there // n_blocks * width
    blocks = np.empty((n_blocks, width + 1), np.int32)
    for first in range(0, n_blocks, BLOCKS_AT_ONCE):
        blocks[first : first + BLOCKS_AT_ONCE] = train.windows(
            starts[first : first + BLOCKS_AT_ONCE], width + 1
        )
        train.release()
    contexts, targets = blocks[:, :-1].reshape(-1), blocks[:, 1:].reshape(-1)
    begins = blocks[:, :-1] == separator
    begins[1:, 0] |= np.diff(starts) > width  # text between the blocks is not part of the sample
    return contexts, targets, np.cumsum(begins.reshape(-1), dtype=np.int32)


def _whole_documents(documents: SmallArray) -> Iterator[slice]:
    """Yield ranges of at least `CHUNK_TOKENS` tokens that end with a document, and one of the rest."""
    ends = np.append(np.flatnonzero(np.diff(documents)) + 1, len(documents))
    start = 0
    while start < len(documents):
        place = min(int(np.searchsorted(ends, start + CHUNK_TOKENS)), len(ends) - 1)
        yield slice(start, int(ends[place]))
        start = int(ends[place])


class _Bigrams:
    """Bigram model of a sample of text, with frequencies of single tokens as its prior."""

    def __init__(self, contexts: SmallArray, targets: SmallArray, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._codes, self._pairs = np.unique(self._coded(contexts, targets), return_counts=True)
        self._contexts = np.bincount(contexts, minlength=vocab_size)
        self._targets = np.bincount(targets, minlength=vocab_size)

    def losses(self, contexts: IntArray, targets: IntArray) -> NDArray[np.float64]:
        """Return -ln P of each target."""
        pairs = self._counts(self._coded(contexts, targets))
        return self._losses(pairs, self._contexts[contexts], self._targets[targets], len_own=0)

    def own_losses(
        self, contexts: SmallArray, targets: SmallArray, documents: SmallArray
    ) -> NDArray[np.float64]:
        """Return -ln P of each target of whole documents of the sample, without its own in the counts."""
        own = (documents - documents[0]).astype(np.int64)
        codes = self._coded(contexts, targets)
        return self._losses(
            self._counts(codes) - _repetitions(own * self._vocab_size**2 + codes),
            self._contexts[contexts] - _repetitions(own * self._vocab_size + contexts),
            self._targets[targets] - _repetitions(own * self._vocab_size + targets),
            len_own=np.bincount(own)[own],
        )

    def _coded(self, contexts: AnyInts, targets: AnyInts) -> IntArray:
        """Return one number for each pair."""
        return contexts.astype(np.int64) * self._vocab_size + targets

    def _counts(self, codes: IntArray) -> IntArray:
        """Return the count of each pair, 0 for an unknown one."""
        order = np.argsort(codes)  # a search in ascending order reads memory in order
        ascending = codes[order]
        places = np.minimum(np.searchsorted(self._codes, ascending), len(self._codes) - 1)
        counts = np.empty_like(codes)
        counts[order] = np.where(self._codes[places] == ascending, self._pairs[places], 0)
        return counts

    def _losses(
        self, pairs: IntArray, contexts: IntArray, targets: IntArray, len_own: IntArray | int
    ) -> NDArray[np.float64]:
        n_tokens = self._targets.sum() - len_own
        prior = (targets + 0.5) / (n_tokens + 0.5 * self._vocab_size)
        found: NDArray[np.float64] = np.log((contexts + PRIOR_TOKENS) / (pairs + PRIOR_TOKENS * prior))
        return found


def _repetitions(items: IntArray) -> IntArray:
    """Return the number of times that each item occurs, shape (n,)."""
    _, index, counts = np.unique(items, return_inverse=True, return_counts=True)
    found: IntArray = counts[index.reshape(-1)]
    return found


def _thousandths(nats: NDArray[np.float64]) -> IntArray:
    return np.rint(nats * 1000).astype(np.int64)


# --- storage -----------------------------------------------------------------------------------------


def write_difficulty(directory: Path, difficulty: Difficulty) -> None:
    """Write the file of a prepared data set, in one rename. Raises OSError where it cannot be written."""
    values = {name: getattr(difficulty, name).tolist() for name in ("heldout", "train", "train_tokens")}
    temporary = directory / f".{FILE}.{uuid.uuid4().hex}"
    try:
        with temporary.open("w") as stream:
            stream.write(canonical_json(values) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(directory / FILE)
    finally:
        with suppress(OSError):
            temporary.unlink()


def read_difficulty(directory: Path, n_documents: int) -> Difficulty | None:
    """Return the difficulty stored for prepared data, or None where it has not been measured.

    Raises:
        DataError: The file is damaged or cannot be read.
    """
    path = directory / FILE
    try:
        values = json.loads(path.read_bytes())
        arrays = {name: _whole(values[name]) for name in ("heldout", "train", "train_tokens")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it and run sweep data prepare") from None
    if len(arrays["heldout"]) != n_documents or len(arrays["train"]) != len(arrays["train_tokens"]):
        raise DataError(
            f"{path} does not match its manifest of {n_documents} held-out documents: delete it and run "
            f"sweep data prepare"
        )
    return Difficulty(**arrays)


def _whole(values: Any) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind != "i"):
        raise ValueError("not a list of whole numbers")
    return array.astype(np.int64)
