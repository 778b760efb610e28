"""Overlap of held-out with training text, by n-grams of tokens.

Exact copies of documents are left out of a corpus; near copies and quotations are not, and lower the held-out
loss. The measure is that of Brown et al. 2020 (arXiv:2005.14165, appendix C), there of 13 words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.data.shards import HeldOut
from sweep.data.token_files import Tokens

N_GRAM = 13  # tokens
MAX_CHECKED = 2**20  # n-grams of the held-out split, evenly spaced: bounds memory at about 50 MB
BLOCK_TOKENS = 2**20  # of the training split, read at once
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial hash: 2^64 over the golden ratio, odd
FILTER_BITS = 24  # of the hash that index a table, by which most n-grams are dismissed


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """N-grams of held-out documents that also occur in the training split.

    N-grams are compared by 64 bits of a hash: among n different ones in the training split, one that does not
    occur there is counted with probability n / 2⁶⁴.
    """

    n_gram: int  # tokens
    n_checked: int  # n-grams of the held-out split that were looked for
    n_found: int
    n_documents: int  # with at least one n-gram checked
    n_documents_mostly_found: int  # with more than half of their n-grams found

    @property
    def share(self) -> float | None:
        """Share of the n-grams that were found; None where no document is as long as one."""
        return self.n_found / self.n_checked if self.n_checked else None


def measure_overlap(train: Tokens, heldout: HeldOut) -> Overlap:
    """Return the overlap of a held-out split with its training split; time is linear in the latter."""
    starts, documents = _places(heldout.document_ends)
    hashes = np.concatenate(
        [
            _hashes(heldout.tokens.windows(part, N_GRAM))
            for part in np.array_split(starts, 1 + len(starts) * N_GRAM // BLOCK_TOKENS)
        ]
    )
    is_found = np.isin(hashes, _occurring(np.unique(hashes), train))
    n_checked = np.bincount(documents)
    n_found = np.bincount(documents, weights=is_found)
    return Overlap(
        n_gram=N_GRAM,
        n_checked=len(hashes),
        n_found=int(is_found.sum()),
        n_documents=int((n_checked > 0).sum()),
        n_documents_mostly_found=int((2 * n_found > n_checked).sum()),
    )


def _places(document_ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first tokens of the n-grams to check and their documents, separators left out."""
    firsts = np.concatenate([[0], document_ends[:-1]]).astype(np.int64)
    n_grams = np.maximum(0, document_ends - 1 - firsts - N_GRAM + 1)  # the last token is the separator
    total = int(n_grams.sum())
    numbers = np.arange(min(total, MAX_CHECKED), dtype=np.int64) * total // max(1, min(total, MAX_CHECKED))
    bounds = np.cumsum(n_grams)
    documents = np.searchsorted(bounds, numbers, side="right")
    return firsts[documents] + numbers - (bounds - n_grams)[documents], documents


def _hashes(windows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a hash of each row: Σ (token_i + 1) · m^(n - 1 - i) modulo 2⁶⁴, then mixed."""
    found = np.zeros(len(windows), np.uint64)
    for column in windows.T.astype(np.uint64):
        found = found * MULTIPLIER + column + np.uint64(1)
    return _mixed(found)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread all bits of `values` over the upper ones (the finaliser of MurmurHash3, Appleby 2011)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return values ^ (values >> np.uint64(33))


def _occurring(wanted: NDArray[np.uint64], train: Tokens) -> NDArray[np.uint64]:
    """Return which of the sorted hashes `wanted` n-grams of the training split have."""
    table = np.zeros(2**FILTER_BITS, dtype=bool)
    table[(wanted >> np.uint64(64 - FILTER_BITS)).astype(np.int64)] = True
    is_there = np.zeros(len(wanted), dtype=bool)
    if not len(wanted):
        return wanted
    for start in range(0, len(train) - N_GRAM + 1, BLOCK_TOKENS):
        stop = min(start + BLOCK_TOKENS + N_GRAM - 1, len(train))
        tokens = train.read(start, stop).astype(np.uint64) + np.uint64(1)
        sums = np.zeros(len(tokens) - N_GRAM + 1, np.uint64)
        for offset in range(N_GRAM):
            sums = sums * MULTIPLIER + tokens[offset : offset + len(sums)]
        hashes = _mixed(sums)
        likely = hashes[table[(hashes >> np.uint64(64 - FILTER_BITS)).astype(np.int64)]]
        places = np.minimum(np.searchsorted(wanted, likely), len(wanted) - 1)
        is_there[places[wanted[places] == likely]] = True
    return wanted[is_there]
