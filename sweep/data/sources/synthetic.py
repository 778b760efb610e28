"""Text from a seeded Markov chain with exactly known entropies, which bound the loss of any model from below.

The chain is of first or second order over V symbols. With x₁ the last symbol and x₂ the one before it,

    P(x | x₁)     = .3 z(x) + .7 π[x₁](x)                          order 1
    P(x | x₁, x₂) = .15 z(x) + .35 π[x₁](x) + .5 π[x₁, x₂](x)      order 2

where z is Zipf's law, z(k) ∝ 1/k, and each π[·] gives the symbol of rank r the weight r^-1.6, with ranks
drawn from z without replacement (Gumbel's trick). A model can learn from zero, one and two symbols of
context, rare contexts last: losses fall smoothly with size, towards a known limit.

The mixtures were designed for this project. Of the chains tried, losses fall as a power law for order 1 and
V = 26 (docs/science.md); with order 2 and V = 64 small models stay far above the limit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.config import SyntheticData
from sweep.data.documents import Document, document
from sweep.data.permutation import mix64
from sweep.data.sources.source import Source

VERSION = 1  # increased when the same config would give other text

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

WEIGHTS = {1: (0.3, 0.7, 0.0), 2: (0.15, 0.35, 0.5)}  # of zero, one and two symbols of context, by order
EXPONENT = 1.6  # of the ranks in each context

BLOCK_SYMBOLS = 2**20  # generated per block

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # Steele, Lea & Flood 2014 (OOPSLA): the increment of SplitMix64


@dataclass(frozen=True, kw_only=True, slots=True)
class Entropies:
    """Conditional entropies of a symbol in nats, given zero, one and two preceding symbols."""

    h0: float
    h1: float
    h2: float  # the entropy rate: more context does not help


def synthetic_source(config: SyntheticData) -> Source:
    """Return the chain's documents, all of one length, each starting from the stationary distribution."""
    recipe: dict[str, str | int] = {
        "source": "synthetic",
        "version": VERSION,
        "seed": config.seed,
        "n_symbols": config.n_symbols,
        "n_documents": config.n_documents,
        "document_symbols": config.document_symbols,
    }
    if config.order != 2:  # the only order of the first releases
        recipe["order"] = config.order
    return Source(name="synthetic", documents=lambda _: synthetic_documents(config), recipe=recipe)


def synthetic_documents(config: SyntheticData) -> Iterator[Document]:
    """Yield the documents, generated in blocks; the same for a config on every machine."""
    n_per_block = max(1, BLOCK_SYMBOLS // config.document_symbols)
    letters = np.frombuffer(ALPHABET, dtype=np.uint8)
    for first in range(0, config.n_documents, n_per_block):
        n_documents = min(n_per_block, config.n_documents - first)
        for number, symbols in enumerate(_draw(config, first, n_documents), start=first):
            yield document(f"synthetic-{number:07d}", letters[symbols].tobytes())


def transitions(seed: int, n_symbols: int, order: int = 2) -> NDArray[np.float64]:
    """Return P(x | x₁, x₂) as an array [x₂, x₁, x], shape (V, V, V)."""
    zipf = 1.0 / np.arange(1, n_symbols + 1)
    zipf /= zipf.sum()
    ranked = np.arange(1, n_symbols + 1) ** -EXPONENT
    ranked /= ranked.sum()
    n_contexts = n_symbols + n_symbols**2
    gumbel = -np.log(-np.log(_uniform(seed, "contexts", 0, n_contexts * n_symbols)))
    ranks = np.argsort(-(np.log(zipf) + gumbel.reshape(n_contexts, n_symbols)), axis=1, kind="stable")
    in_context = np.empty((n_contexts, n_symbols))
    np.put_along_axis(in_context, ranks, ranked[None, :].repeat(n_contexts, axis=0), axis=1)
    one, two = in_context[:n_symbols], in_context[n_symbols:].reshape((n_symbols,) * 3)
    weights = WEIGHTS[order]
    return weights[0] * zipf + weights[1] * one[None, :, :] + weights[2] * two


@cache
def stationary_pairs(seed: int, n_symbols: int, order: int = 2) -> NDArray[np.float64]:
    """Return the stationary distribution of pairs of symbols, an array [x₂, x₁] that sums to 1.

    The fixed point of p(x₁, x) = Σ p(x₂, x₁) P(x | x₁, x₂), by iteration: because of the part of P that does
    not depend on the context, each step multiplies the error by at most .85.
    """
    chain = transitions(seed, n_symbols, order)
    pairs = np.full((n_symbols, n_symbols), n_symbols**-2.0)
    change = 1.0
    while change > 1e-14:
        following = np.einsum("ab,abc->bc", pairs, chain)
        following /= following.sum()
        change = float(np.abs(following - pairs).sum())
        pairs = following
    return pairs


def conditional_entropies(config: SyntheticData) -> Entropies:
    """Return the exact entropies of the next symbol given zero, one and two preceding symbols.

    >>> from sweep.config import SyntheticData
    >>> config = SyntheticData(
    ...     source="synthetic", seed=0, n_symbols=2, n_documents=1, document_symbols=16, holdout_frac=0.1
    ... )
    >>> found = conditional_entropies(config)
    >>> math.log(2) > found.h0 > found.h1 > found.h2
    True
    """
    chain = config.seed, config.n_symbols, config.order
    pairs = stationary_pairs(*chain)
    single = pairs.sum(axis=0)
    triples = pairs[:, :, None] * transitions(*chain)
    h_pair, h_single = _entropy(pairs), _entropy(single)
    return Entropies(h0=h_single, h1=h_pair - h_single, h2=_entropy(triples) - h_pair)


def loss_floor(config: SyntheticData, seq_len: int) -> float:
    """Return the exact minimum expected loss of any model with tokenizer=byte, in nats per token.

    Windows of seq_len + 1 tokens are taken at random from documents of L = `document_symbols` symbols and a
    separator each, L + 1 ≥ seq_len. The model knows the chain, L, and the k = 1 … seq_len tokens before its
    target; the target's position in the cycle of L + 1 is uniform. With probability 1 - k/(L+1) there is no
    separator among the k tokens, and the target is a separator with probability h = 1/(L+1-k), which costs
    the binary entropy of h. A symbol costs H₀, H₁ or H₂ after zero, one or two symbols of its document in the
    window.

    Raises:
        ValueError: seq_len is longer than a document.
    """
    cycle = _cycle(config, seq_len)
    entropies = conditional_entropies(config)
    total = 0.0
    for k in range(1, seq_len + 1):
        total += (1 - k / cycle) * _binary_entropy(1 / (cycle - k)) + entropies.h0 / cycle
        if k == 1:
            total += (cycle - 2) / cycle * entropies.h1
        else:
            total += (entropies.h1 + (cycle - 3) * entropies.h2) / cycle
    return total / seq_len


def optimal_losses(config: SyntheticData, windows: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the losses of the optimal model of `loss_floor` on some windows, shape (n, seq_len), in nats.

    `windows`, shape (n, seq_len + 1), holds symbols from 0, and n_symbols for a separator. The mean over
    held-out windows is the minimum that a sweep scored on them approaches. It differs from `loss_floor` by
    the sampling of the text.

    Raises:
        ValueError: seq_len is longer than a document.
    """
    n_symbols, cycle = config.n_symbols, _cycle(config, windows.shape[1] - 1)
    chain = transitions(config.seed, n_symbols, config.order)
    pairs = stationary_pairs(config.seed, n_symbols, config.order)
    single = pairs.sum(axis=0)
    given_one = np.einsum("ab,abc->bc", pairs, chain) / single[:, None]
    is_end, symbols = windows == n_symbols, np.where(windows == n_symbols, 0, windows)
    losses = np.empty((len(windows), windows.shape[1] - 1))
    since = np.full(len(windows), -1)  # symbols since a separator in the window; -1: none seen
    for k in range(1, windows.shape[1]):
        since = np.where(is_end[:, k - 1], 0, np.where(since < 0, -1, since + 1))
        p_end = np.where(since < 0, 1 / (cycle - k), since == cycle - 1)
        n_known = np.where(since < 0, k, since)
        last, target = symbols[:, k - 1], symbols[:, k]
        p = np.where(n_known == 0, single[target], given_one[last, target])
        p = np.where(n_known > 1, chain[symbols[:, max(k - 2, 0)], last, target], p)
        losses[:, k - 1] = -np.log(np.where(is_end[:, k], p_end, (1 - p_end) * p))
    return losses


def _cycle(config: SyntheticData, seq_len: int) -> int:
    """Return the tokens of a document with its separator. Raises ValueError if `seq_len` is not less."""
    cycle = config.document_symbols + 1
    if seq_len >= cycle:
        raise ValueError(f"seq_len={seq_len} must be less than a document's {cycle} tokens")
    return cycle


def _entropy(probabilities: NDArray[np.float64]) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def _binary_entropy(p: float) -> float:
    return 0.0 if p in (0.0, 1.0) else -p * math.log(p) - (1 - p) * math.log1p(-p)


def _draw(config: SyntheticData, first: int, n_documents: int) -> NDArray[np.uint8]:
    """Return the symbols of documents first, first + 1, …, shape (n_documents, document_symbols)."""
    n_symbols, length = config.n_symbols, config.document_symbols
    draws = _uniform(config.seed, "text", first * length, n_documents * length).reshape(n_documents, length)
    chain = config.seed, n_symbols, config.order
    following = np.cumsum(transitions(*chain), axis=2)
    pairs = np.cumsum(stationary_pairs(*chain).ravel())
    symbols = np.empty((n_documents, length), dtype=np.uint8)
    # one random number selects the first two symbols: a pair from the stationary distribution
    first_pair = np.minimum(np.searchsorted(pairs, draws[:, 0], side="right"), n_symbols**2 - 1)
    symbols[:, 0], symbols[:, 1] = np.divmod(first_pair, n_symbols)
    for place in range(2, length):
        cumulated = following[symbols[:, place - 2], symbols[:, place - 1], :-1]
        symbols[:, place] = (cumulated <= draws[:, place, None]).sum(axis=1)
    return symbols


def _uniform(seed: int, purpose: str, first: int, n: int) -> NDArray[np.float64]:
    """Return items first..first+n-1 of a seeded infinite sequence, uniform in (0, 1), shape (n,).

    SplitMix64 is counter-based, so any part can be computed directly. Source: Steele, Lea & Flood 2014
    (OOPSLA).
    """
    key = np.frombuffer(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest(), dtype="<u8")
    counters = np.arange(first + 1, first + n + 1, dtype=np.uint64)
    bits = mix64(key.astype(np.uint64) + counters * _GOLDEN) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) * 2.0**-53
