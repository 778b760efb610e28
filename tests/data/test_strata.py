"""Stratified selection: shares, limits, and the error of the level it leaves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.data.difficulty import Difficulty
from sweep.data.strata import Selection, apportion, select_stratified
from sweep.train.evaluate import clustered_mean

T = 4


def difficulty(heldout: list[int], train: list[int] | None = None) -> Difficulty:
    values, counts = np.unique(train or heldout, return_counts=True)
    return Difficulty(heldout=np.array(heldout), train=values, train_tokens=counts * 1000)


def select(found: Difficulty, windows: list[int], n_windows: int) -> Selection:
    """Select among documents of whole numbers of windows."""
    ends = np.cumsum(np.array(windows) * T) + 1
    return select_stratified(found, ends, int(ends[-1]), T, n_windows)


@given(
    parts=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 50)), min_size=1, max_size=12),
    frac=st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_parts_add_up_within_their_limits_and_follow_their_weights(
    parts: list[tuple[int, int]], frac: float
) -> None:
    weights, capacity = (np.array(column, dtype=np.int64) for column in zip(*parts, strict=True))
    total = int(frac * capacity.sum())
    found = apportion(total, weights, capacity)
    assert found.sum() == total
    assert (found >= 0).all()
    assert (found <= capacity).all()
    per_weight = found / np.maximum(weights, 1)
    for i in np.flatnonzero(found < capacity):  # what has room has no less per weight than the others
        assert (found - 1 <= (per_weight[i] + 1 / max(1, weights[i])) * np.maximum(weights, 1) + 1e-9).all()


def test_each_difficulty_has_its_share_of_the_training_text() -> None:
    easy_and_hard = [1000 + i for i in range(8)] + [5000 + i for i in range(8)]
    train = easy_and_hard[:8] + easy_and_hard[8:] * 3
    selected = select(difficulty(easy_and_hard, train), [40] * 16, 160)
    is_hard = selected.documents >= 8
    assert is_hard.sum() == 120
    assert np.bincount(selected.documents).tolist() == [5] * 8 + [15] * 8
    assert np.bincount(selected.strata, is_hard).astype(bool).tolist() == [False, False, True, True]


def test_short_documents_give_all_they_have_and_the_others_the_rest() -> None:
    selected = select(difficulty([1000] * 4), [2, 30, 30, 0], 42)
    assert np.bincount(selected.documents).tolist() == [2, 20, 20]
    assert (np.diff(selected.starts[selected.documents == 1]) <= 2 * T).all()  # spread over the document


@pytest.mark.parametrize("train", [None, [1000] * 999 + [1039]])
def test_every_stratum_has_two_scored_documents(train: list[int] | None) -> None:
    found = difficulty(list(range(1000, 1040)), train)
    for n_windows in (1, 2, 3, 10, 15, 300):
        selected = select(found, [10] * 40, n_windows)
        assert len(selected.starts) == n_windows
        for stratum in np.unique(selected.strata).tolist():
            documents = np.unique(selected.documents[selected.strata == stratum])
            assert len(documents) >= min(2, n_windows)
    assert len(np.unique(select(found, [10] * 40, 300).strata)) == 10


def test_the_order_of_documents_does_not_matter() -> None:
    chance = np.random.default_rng(0)
    values, sizes = chance.permutation(60) + 2000, chance.integers(1, 40, 60)
    order = chance.permutation(60)
    one = select(difficulty(values.tolist()), sizes.tolist(), 200)
    other = select(difficulty(values[order].tolist()), sizes[order].tolist(), 200)
    per_document = np.bincount(one.documents, minlength=60)
    assert np.bincount(other.documents, minlength=60).tolist() == per_document[order].tolist()


def test_the_error_of_the_level_is_that_of_what_difficulty_does_not_explain() -> None:
    """The level over many draws of documents of very different loss varies by its standard error."""
    chance = np.random.default_rng(1)
    train = np.rint(chance.normal(4000, 800, 4000)).astype(int).tolist()
    levels, errors, even = [], [], []
    for _ in range(200):
        values = np.rint(chance.normal(4000, 800, 100)).astype(int)
        losses = values / 1000 + chance.normal(0, 0.15, 100)
        selected = select(difficulty(values.tolist(), train), [60] * 100, 600)
        scored = losses[selected.documents] + chance.normal(0, 0.3, 600)
        level, error = clustered_mean(scored, selected.documents, selected.strata)
        levels.append(level)
        errors.append(error)
        even.append(losses.mean())
    assert np.std(even) > 0.07
    assert np.std(levels) < 0.03
    assert np.mean(errors) == pytest.approx(np.std(levels), rel=0.25)
    assert np.mean(levels) == pytest.approx(4.0, abs=0.02)
