"""Budgets found from gaps in FLOPs: narrow groups only, and only if most points are in one."""

import numpy as np
import pytest

from sweep.fit.table.budgets import group_budgets

CENTRES = (25.0, 27.0, 29.0)


@pytest.mark.parametrize(
    ("widths", "found"),
    [
        ((0.14, 0.14, 0.14), (0, 1, 2)),
        ((0.14, 0.16, 0.14), (0, 2)),  # too wide: runs of unequal cost
        ((0.14, 0.16, 0.16), ()),  # a third of the points is no sweep by budgets
    ],
)
def test_a_group_is_a_budget_if_it_is_narrow(widths, found):
    steps = np.linspace(-0.5, 0.5, 5)
    log_c = np.concatenate([c + width * steps for c, width in zip(CENTRES, widths, strict=True)])
    n_params = np.tile([1e6, 2e6, 3e6, 4e6, 5e6], 3)
    index, budgets = group_budgets(np.full(15, np.nan), np.exp(log_c), n_params)
    assert np.log(budgets) == pytest.approx([CENTRES[number] for number in found])
    expected = [found.index(number) if number in found else -1 for number in range(3)]
    assert index.tolist() == np.repeat(expected, 5).tolist()


def test_a_group_of_one_size_is_no_budget():
    log_c = np.concatenate([centre + np.zeros(3) for centre in CENTRES])
    n_params = np.array([1e6, 1e6, 1e6, *([1e6, 2e6, 3e6] * 2)])
    index, budgets = group_budgets(np.full(9, np.nan), np.exp(log_c), n_params)
    assert index.tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, 1]
    assert np.log(budgets) == pytest.approx(CENTRES[1:])
