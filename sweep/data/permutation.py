"""Seeded pseudo-random permutations of 0..n-1, evaluated position by position in constant memory."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

N_ROUNDS = 8
"""Feistel rounds. Four make a strong pseudo-random permutation of a large domain (Luby & Rackoff 1988, SIAM
J. Comput. 17(2)); small domains want more, and eight keys are one BLAKE2b digest."""

# Steele, Lea & Flood 2014 (OOPSLA), SplitMix64, with Stafford's mixing constants (variant 13)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)


def epoch_order(first: int, stop: int, n: int, seed: int) -> NDArray[np.int64]:
    """Return positions first..stop-1 of an endless sequence of epochs over 0..n-1, shape (stop - first,).

    The n positions from each multiple of n are a permutation of 0..n-1, different for each epoch and seed.
    Position p depends only on (p, n, seed). Memory is O(stop - first).

    The permutation is a Feistel network on the smallest power of two ≥ n; a value ≥ n is encrypted again
    until it is below n ("cycle walking"): the result is a bijection, with fewer than two passes on average.

    Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains" (CT-RSA), method 2.
    """
    epochs, items = np.divmod(np.arange(first, stop, dtype=np.int64), n)
    keys = np.stack([_round_keys(seed, epoch) for epoch in range(first // n, (stop - 1) // n + 1)])
    keys_of = keys[epochs - first // n]
    values = items.astype(np.uint64)
    n_bits = (n - 1).bit_length()
    walking = np.arange(len(values))
    while len(walking):
        values[walking] = _feistel(values[walking], keys_of[walking], n_bits)
        walking = walking[values[walking] >= n]
    return values.astype(np.int64)


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    """Return `N_ROUNDS` independent 64-bit keys for one epoch, shape (N_ROUNDS,)."""
    digest = hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8 * N_ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def _feistel(values: NDArray[np.uint64], keys: NDArray[np.uint64], n_bits: int) -> NDArray[np.uint64]:
    """Permute 0..2^n_bits-1; `keys` has shape (len(values), N_ROUNDS).

    The halves may differ in width by one bit: alternate rounds change one half as a function of the other, so
    each round is its own inverse for any width.
    """
    n_low = n_bits // 2
    shift, low_mask = np.uint64(n_low), np.uint64((1 << n_low) - 1)
    high_mask = np.uint64((1 << (n_bits - n_low)) - 1)
    high, low = values >> shift, values & low_mask
    for round_ in range(0, N_ROUNDS, 2):
        high ^= mix64(low + keys[:, round_]) & high_mask
        low ^= mix64(high + keys[:, round_ + 1]) & low_mask
    return (high << shift) | low


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Map 64-bit integers one to one; every output bit depends on every input bit."""
    for shift, factor in _MIX:
        values = (values ^ (values >> shift)) * factor
    return values ^ (values >> _LAST_SHIFT)
