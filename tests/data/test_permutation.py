import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.data.permutation import epoch_order

SEEDS = st.integers(0, 2**70)


@given(n=st.integers(1, 700), seed=SEEDS, epoch=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_each_epoch_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(epoch * n, (epoch + 1) * n, n, seed).tolist()) == list(range(n))


@given(n=st.integers(1, 60), seed=SEEDS, first=st.integers(0, 500), length=st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_a_position_does_not_depend_on_the_range_read(n: int, seed: int, first: int, length: int) -> None:
    whole = epoch_order(0, first + length, n, seed)
    assert epoch_order(first, first + length, n, seed).tolist() == whole[first:].tolist()


def test_all_orders_of_a_small_set_occur() -> None:
    for n in (2, 3, 4):
        epochs = epoch_order(0, 600 * n, n, 0).reshape(600, n)
        assert {tuple(order) for order in epochs.tolist()} == set(itertools.permutations(range(n)))


def test_items_are_uniform_over_positions() -> None:
    n, n_epochs = 24, 3000
    epochs = epoch_order(0, n * n_epochs, n, 5).reshape(n_epochs, n)
    counts = np.stack([np.bincount(epochs[:, place], minlength=n) for place in range(n)])
    chi_squared = ((counts - n_epochs / n) ** 2 / (n_epochs / n)).sum()
    n_free = (n - 1) ** 2  # rows and columns both sum to n_epochs
    assert abs(chi_squared - n_free) < 5 * np.sqrt(2 * n_free)


def test_neighbouring_positions_are_uncorrelated() -> None:
    n = 100_003
    order = epoch_order(0, n, n, 1).astype(float)
    steps = np.abs(np.diff(order))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 5 / np.sqrt(n)
    assert abs(steps.mean() / n - 1 / 3) < 0.01  # of two uniform numbers


def test_seeds_and_epochs_differ() -> None:
    n = 1000
    orders = [tuple(epoch_order(e * n, (e + 1) * n, n, seed).tolist()) for seed in range(5) for e in range(5)]
    assert len(set(orders)) == 25
    fixed_points = [sum(a == b for a, b in zip(orders[0], other, strict=True)) for other in orders[1:]]
    assert max(fixed_points) < 10  # Poisson with mean 1


def test_memory_does_not_grow_with_n() -> None:
    n = 10**15 + 37
    order = epoch_order(n - 500, n + 500, n, 3)
    assert order.min() >= 0
    assert order.max() < n
    assert len(set(order[:500].tolist())) == 500


def test_the_order_is_unchanged_since_stored_results() -> None:
    """A change of the order changes results: increase SEMANTICS_VERSION together with this value."""
    assert epoch_order(0, 12, 10, 0).tolist() == [7, 9, 5, 0, 1, 3, 6, 8, 4, 2, 1, 9]
