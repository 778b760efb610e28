"""Laws of learning rate and batch on planted tables."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from sweep.fit.hparam_laws import HparamLaws, fit_hparam_laws
from sweep.fit.refusals import RefusedError
from sweep.plan.rules import power_law_rule
from sweep.records import Point
from tests.configs import TINY

SIZES, TOKENS = (2e8, 4e8, 1e9), (5e9, 2e10, 1e11)
STEPS = 2.0 ** np.arange(-3, 4)  # factors on a rate or batch near the optimum of a middle cell


def best(n_params: float, n_tokens: float) -> tuple[float, float]:
    """Step Law (Li et al. 2025, equation 1)."""
    return 1.79 * n_params**-0.713 * n_tokens**0.307, 0.58 * n_tokens**0.571


def planted(
    settings: Iterable[tuple[float, float]],
    *,
    sd: float = 2e-4,
    seed: int = 0,
    cells: Iterable[tuple[float, float]] = tuple(product(SIZES, TOKENS)),
) -> list[Point]:
    """Runs of every cell with rates and batches at factors of the optimum of the middle cell."""
    rng = np.random.default_rng(seed)
    middle = best(4e8, 2e10)
    points = []
    for n_params, n_tokens in cells:
        optimum = best(n_params, n_tokens)
        for lr_step, batch_step in settings:
            lr, batch = middle[0] * lr_step, round(middle[1] * batch_step)
            x, y = math.log(lr / optimum[0]), math.log(batch / optimum[1])
            floor = 1.7 + 400 / n_params**0.34 + 400 / n_tokens**0.28
            loss = floor * math.exp(
                0.004 * x * x + 0.003 * y * y - 0.002 * x * y + sd * rng.standard_normal()
            )
            points.append(
                Point(n_params=n_params, n_tokens=n_tokens, lr_peak=lr, batch_tokens=batch, loss=loss)
            )
    return points


GRID = tuple(product(STEPS, STEPS))


def exponents(found: HparamLaws) -> tuple[float, float, float]:
    lr, batch = found.laws["lr"], found.laws["batch"]
    assert lr.n_exponent is not None
    assert lr.d_exponent is not None
    assert batch.d_exponent is not None
    assert batch.n_exponent is None
    return lr.n_exponent.value, lr.d_exponent.value, batch.d_exponent.value


def test_the_planted_exponents_are_found():
    found = fit_hparam_laws(planted(GRID[::2]), n_bootstrap=200)
    assert exponents(found) == pytest.approx((-0.713, 0.307, 0.571), abs=0.02)
    for exponent in (
        found.laws["lr"].n_exponent,
        found.laws["lr"].d_exponent,
        found.laws["batch"].d_exponent,
    ):
        assert 0 < exponent.interval[1] - exponent.interval[0] < 0.1


def test_intervals_hold_the_planted_exponents():
    """90% intervals, 20 tables of 9 cells: 60 intervals."""
    held = []
    for seed in range(20):
        found = fit_hparam_laws(
            planted(GRID[::3], sd=1e-3, seed=seed), n_bootstrap=100, confidence=0.9, seed=seed
        )
        lr, batch = found.laws["lr"], found.laws["batch"]
        for exponent, truth in (
            (lr.n_exponent, -0.713),
            (lr.d_exponent, 0.307),
            (batch.d_exponent, 0.571),
        ):
            held.append(exponent.interval[0] <= truth <= exponent.interval[1])
    assert 0.8 <= np.mean(held) <= 0.99


def test_the_rule_gives_the_law():
    law = fit_hparam_laws(planted(GRID), n_bootstrap=20).laws["batch"]
    rule = power_law_rule(law.rule)
    assert rule is not None
    assert rule.at(TINY, 3e10) == pytest.approx(law.at(1.0, 3e10), rel=0.01)
    assert law.at(1.0, 3e10) == pytest.approx(best(1.0, 3e10)[1], rel=0.05)


def test_one_axis_is_enough():
    found = fit_hparam_laws(planted([(step, 1.0) for step in STEPS]), n_bootstrap=50)
    assert found.rules.keys() == {"optimizer.lr"}
    assert found.laws["lr"].n_exponent.value == pytest.approx(-0.713, abs=0.05)


def test_three_values_without_a_spare_run_have_no_standard_error():
    found = fit_hparam_laws(planted([(step, 1.0) for step in (0.25, 1.0, 4.0)], sd=0.0), n_bootstrap=50)
    assert all(cell.se == {} for cell in found.cells)
    json.dumps(found.to_json(), allow_nan=False)
    assert found.laws["lr"].n_exponent.value == pytest.approx(-0.713, abs=0.01)


def test_a_cross_of_two_seeds_is_enough():
    """A hyperparameter check has five settings, without the corners."""
    cross = [(1, 1), (1, 0.25), (1, 4), (0.25, 1), (4, 1)] * 2
    cells = [(4e8, n_tokens) for n_tokens in (1e10, 2e10, 3e10, 4e10)]
    found = fit_hparam_laws(planted(cross, cells=cells), n_bootstrap=50)
    assert found.laws["batch"].d_exponent.value == pytest.approx(0.571, abs=0.25)
    assert found.laws["lr"].n_exponent is None
    assert any("all cells have one N" in note for note in found.laws["lr"].notes)


def test_a_cell_with_its_minimum_at_an_edge_is_named_and_not_used():
    low = [(step, 1.0) for step in STEPS if step < 0.6]
    (edge,) = {(1e9, 5e9)}
    points = planted([(step, 1.0) for step in STEPS], cells=[c for c in product(SIZES, TOKENS) if c != edge])
    shifted = [replace(p, lr_peak=p.lr_peak / 16) for p in planted(low, cells=[edge])]
    found = fit_hparam_laws([*points, *shifted], n_bootstrap=20)
    (left_out,) = [cell for cell in found.cells if cell.reason]
    assert left_out.name == "N = 1e+09, D = 5e+09"
    assert "minimum is at the largest learning rate" in left_out.reason
    assert found.laws["lr"].n_cells == 8


def test_too_few_cells_are_refused():
    cells = [(2e8, 5e9), (4e8, 2e10)]
    with pytest.raises(RefusedError, match="2 cells have a minimum in learning rate, and"):
        fit_hparam_laws(planted(GRID, cells=cells))
    with pytest.raises(RefusedError, match="no cell of equal N and D has 3 learning rates or batches"):
        fit_hparam_laws(planted([(1.0, 1.0)]))


def test_runs_of_several_optimizers_are_refused():
    points = [replace(p, optimizer=name) for name in ("adamw", "muon") for p in planted(GRID)]
    with pytest.raises(RefusedError, match=r"2 optimizers \(optimizer adamw, muon\)"):
        fit_hparam_laws(points)


def test_sizes_and_tokens_that_grow_together_give_one_exponent():
    cells = [(n_params, 20 * n_params) for n_params in (2e8, 4e8, 8e8, 1.6e9)]
    law = fit_hparam_laws(planted(GRID, cells=cells), n_bootstrap=50).laws["lr"]
    assert law.d_exponent is None
    assert law.n_exponent.value == pytest.approx(-0.713 + 0.307, abs=0.05)
    assert "N and D grow together" in law.notes[0]
