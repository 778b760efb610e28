"""Stratified selection of held-out windows by the difficulty of their documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.data.difficulty import Difficulty

MAX_STRATA = 32
DOCUMENTS_PER_STRATUM = 4  # at least, so that the spread within a stratum can be measured

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """Selected windows in ascending order, each with its document and stratum."""

    starts: IntArray  # (n,): the token before the first target
    documents: IntArray  # (n,): the held-out document that has the first target
    strata: IntArray  # (n,): at least two documents in each, unless there is only one in all


def select_stratified(
    difficulty: Difficulty, document_ends: IntArray, n_held_out: int, seq_len: int, n_windows: int
) -> Selection:
    """Select windows so that each level of difficulty has the share it has in the training text.

    The held-out split of `n_held_out` tokens is cut into windows at stride `seq_len`, and a window belongs to
    the document of its first target. Documents in order of difficulty form strata of equal numbers. A stratum
    gets windows in proportion to the training tokens of that difficulty, its documents get equal numbers,
    spread evenly over each; what one is too short for goes to the others. The mean loss over the windows is
    then the post-stratified estimate (Cochran 1977, ch. 5A) of the loss on unseen text like the training
    text, and does not depend on the order of the documents but for ties.

    Expects at least `n_windows` windows in the split.
    """
    owners = np.searchsorted(document_ends, np.arange((n_held_out - 1) // seq_len) * seq_len + 1, "right")
    n_available = np.bincount(owners, minlength=len(document_ends))
    candidates = np.flatnonzero(n_available)
    candidates = candidates[np.argsort(difficulty.heldout[candidates], kind="stable")]
    stratum = _strata(len(candidates))
    shares = _training_shares(difficulty, difficulty.heldout[candidates], stratum)
    capacity = np.bincount(stratum, n_available[candidates]).astype(np.int64)
    n_selected = np.zeros_like(n_available)
    for index, count in enumerate(apportion(n_windows, shares, capacity).tolist()):
        members = candidates[stratum == index]
        n_selected[members] = apportion(count, np.ones_like(members), n_available[members])
    first = np.cumsum(n_available) - n_available
    windows = np.concatenate(
        [
            first[document] + _spread(int(n_available[document]), int(n_selected[document]))
            for document in np.flatnonzero(n_selected).tolist()
        ]
    )
    stratum_of = np.zeros_like(n_available)
    stratum_of[candidates] = _merged(stratum, n_selected[candidates] > 0)
    return Selection(starts=windows * seq_len, documents=owners[windows], strata=stratum_of[owners[windows]])


def apportion(total: int, weights: IntArray, capacity: IntArray) -> IntArray:
    """Divide `total` in proportion to `weights`, no part above its `capacity`, by largest remainders.

    In whole numbers throughout. Weights below 1 count as 1. Expects total <= capacity.sum().

    >>> apportion(10, np.array([1, 1, 2]), np.array([9, 9, 9])).tolist()
    [3, 2, 5]
    >>> apportion(10, np.array([1, 1, 2]), np.array([9, 9, 4])).tolist()
    [3, 3, 4]
    """
    weights, is_full = np.maximum(weights, 1), capacity == 0
    while True:
        open_weights = np.where(is_full, 0, weights)
        left = total - int(capacity[is_full].sum())
        share, remainder = np.divmod(left * open_weights, max(1, int(open_weights.sum())))
        over = ~is_full & (share >= capacity)
        if not over.any():
            break
        is_full |= over
    parts = np.where(is_full, capacity, share)
    largest = np.argsort(np.where(is_full, 1, -remainder), kind="stable")
    parts[largest[: total - int(parts.sum())]] += 1
    return parts


def _strata(n_documents: int) -> IntArray:
    """Return the stratum of each document in order of difficulty: groups of equal numbers."""
    n_strata = max(1, min(MAX_STRATA, n_documents // DOCUMENTS_PER_STRATUM))
    return np.arange(n_documents) * n_strata // n_documents


def _training_shares(difficulty: Difficulty, ordered: IntArray, stratum: IntArray) -> IntArray:
    """Return the training tokens nearest in difficulty to the documents of each stratum."""
    first = np.flatnonzero(np.diff(stratum)) + 1
    bounds = (ordered[first - 1] + ordered[first]) / 2
    at = np.searchsorted(bounds, difficulty.train)
    return np.bincount(at, difficulty.train_tokens, minlength=len(first) + 1).astype(np.int64)


def _spread(n_available: int, n_selected: int) -> IntArray:
    """Return `n_selected` of the numbers 0 .. n_available - 1, evenly spread."""
    return (2 * np.arange(n_selected) + 1) * n_available // (2 * n_selected)


def _merged(stratum: IntArray, is_scored: NDArray[np.bool_]) -> IntArray:
    """Merge strata with fewer than two scored documents into their neighbours."""
    n_scored = np.bincount(stratum, is_scored)
    merged, current, n_current = np.zeros(len(n_scored), np.int64), 0, 0
    for index, count in enumerate(n_scored.astype(np.int64).tolist()):
        if n_current >= 2 and count + n_scored[index + 1 :].sum() >= 2:
            current, n_current = current + 1, 0
        merged[index] = current
        n_current += count
    return merged[stratum]
