import hashlib
import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from sweep.config import SyntheticData
from sweep.data.sources import synthetic
from sweep.data.sources.synthetic import (
    ALPHABET,
    conditional_entropies,
    loss_floor,
    optimal_losses,
    stationary_pairs,
    synthetic_documents,
    transitions,
)

CONFIG = SyntheticData(
    source="synthetic", seed=0, n_symbols=64, n_documents=12_000, document_symbols=1023, holdout_frac=0.05
)
SMALL = replace(CONFIG, n_symbols=5, n_documents=400, document_symbols=400)


def symbols_of(config: SyntheticData) -> np.ndarray:
    place = np.zeros(256, dtype=np.int64)
    place[list(ALPHABET)] = np.arange(64)
    texts = [np.frombuffer(found.content, dtype=np.uint8) for found in synthetic_documents(config)]
    return place[np.stack(texts)]


def test_the_entropies_equal_those_of_the_prototype() -> None:
    """3.534 / 3.211 / 2.800 for one draw of the contexts, in a prototype with a recovered loss floor."""
    found = [conditional_entropies(replace(CONFIG, seed=seed)) for seed in range(6)]
    for name, value in (("h0", 3.534), ("h1", 3.211), ("h2", 2.800)):
        mine = np.array([getattr(entropies, name) for entropies in found])
        assert abs(mine.mean() - value) < 0.08
        assert mine.std() < 0.05
    assert all(one.h0 > one.h1 > one.h2 for one in found)


def test_the_transitions_and_their_stationary_distribution() -> None:
    chain = transitions(3, 64)
    assert np.allclose(chain.sum(axis=2), 1, atol=1e-12)
    assert chain.min() > 0
    pairs = stationary_pairs(3, 64)
    assert np.abs(np.einsum("ab,abc->bc", pairs, chain) - pairs).sum() < 1e-13
    assert pairs.sum() == pytest.approx(1)


def test_the_generated_text_has_the_stated_entropies() -> None:
    """Compare with frequencies of single symbols, pairs and triples in the text."""
    symbols, n = symbols_of(replace(SMALL, n_documents=2000)), 5

    def entropy(*columns: np.ndarray) -> float:
        codes = sum(column * n**i for i, column in enumerate(columns))
        shares = np.bincount(codes.ravel()) / codes.size
        return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())

    first, second, third = symbols[:, :-2], symbols[:, 1:-1], symbols[:, 2:]
    found = conditional_entropies(SMALL)
    assert entropy(third) == pytest.approx(found.h0, abs=0.005)
    assert entropy(second, third) - entropy(third) == pytest.approx(found.h1, abs=0.005)
    assert entropy(first, second, third) - entropy(second, third) == pytest.approx(found.h2, abs=0.005)
    starts = np.bincount(symbols[:, 0], minlength=n) / len(symbols)
    assert (
        np.abs(starts - stationary_pairs(0, n).sum(axis=0)).max() < 0.05
    )  # stationary from the first symbol


@pytest.mark.parametrize(("seq_len", "order"), [(1, 2), (2, 2), (7, 2), (7, 1)])
def test_the_loss_floor_is_the_loss_of_the_optimal_model(seq_len: int, order: Literal[1, 2]) -> None:
    """Apply Bayes' rule to every token of the generated stream, given the tokens in the window."""
    config = replace(SMALL, n_documents=300, document_symbols=16, order=order)
    cycle, n, sep = 17, 5, 5
    stream = np.concatenate([[*row, sep] for row in symbols_of(config)])
    chain, pairs = transitions(0, n, order), stationary_pairs(0, n, order)
    single = pairs.sum(axis=0)
    losses = []
    windows = np.lib.stride_tricks.sliding_window_view(stream, seq_len + 1)
    for end in range(seq_len, len(stream)):
        for k in range(1, seq_len + 1):
            target, known = stream[end - seq_len + k], stream[end - seq_len : end - seq_len + k]
            since = k - 1 - int(np.flatnonzero(known == sep)[-1]) if (known == sep).any() else None
            p_end = 1 / (cycle - k) if since is None else float(since == cycle - 1)
            if target == sep:
                losses.append(-math.log(p_end))
                continue
            context = known if since is None else known[len(known) - since :]
            if len(context) == 0:
                p = single
            elif len(context) == 1:
                p = pairs[:, context[-1]] @ chain[:, context[-1]] / single[context[-1]]
            else:
                p = chain[context[-2], context[-1]]
            losses.append(-math.log((1 - p_end) * p[target]))
    spread = np.std(losses) / math.sqrt(len(losses) / seq_len)
    assert np.mean(losses) == pytest.approx(loss_floor(config, seq_len), abs=4 * spread)
    assert np.allclose(optimal_losses(config, windows).reshape(-1), losses)
    assert spread < 0.02


def test_windows_longer_than_a_document_have_no_optimal_loss() -> None:
    short = replace(SMALL, document_symbols=16)
    for seq_len in (17, 32):
        with pytest.raises(ValueError, match=f"seq_len={seq_len} must be less than a document's 17 tokens"):
            optimal_losses(short, np.zeros((1, seq_len + 1), dtype=np.int64))


def test_a_chain_of_first_order_needs_one_symbol_of_context() -> None:
    entropies = conditional_entropies(replace(CONFIG, order=1))
    assert entropies.h0 > entropies.h1 == pytest.approx(entropies.h2, abs=1e-12)
    chain = transitions(0, 64, 1)
    assert np.array_equal(chain[0], chain[1])
    assert not np.allclose(chain[0, 0], chain[0, 1])


def test_the_loss_floor_approaches_the_entropy_rate() -> None:
    entropies = conditional_entropies(CONFIG)
    plain = (entropies.h1 + 31 * entropies.h2) / 32  # of a stream without separators
    assert plain < loss_floor(CONFIG, 32) < plain + 0.008
    assert loss_floor(CONFIG, 32) > loss_floor(CONFIG, 64) > entropies.h2
    with pytest.raises(ValueError, match="seq_len=1024 must be less than a document's 1024"):
        loss_floor(CONFIG, 1024)


def test_text_depends_only_on_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the text changes the corpus: increase VERSION together with this hash."""
    config = replace(CONFIG, n_documents=50)
    texts = [found.content for found in synthetic_documents(config)]
    assert hashlib.sha256(b"\n".join(texts)).hexdigest() == (
        "929f5049f940ad5664b80fe734367f3d4c9d662362830809ebd93d668d9b5ad5"
    )
    short = replace(config, document_symbols=64)
    texts = [found.content for found in synthetic_documents(short)]
    monkeypatch.setattr(synthetic, "BLOCK_SYMBOLS", 7 * 64)
    assert [found.content for found in synthetic_documents(short)] == texts
    longer = synthetic_documents(replace(short, n_documents=60))
    assert [found.content for found in longer][:50] == texts
    assert len(set(texts)) == 50
    other = synthetic_documents(replace(short, seed=1))
    assert not set(texts) & {found.content for found in other}
