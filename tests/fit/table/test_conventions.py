"""Tests of tables that mix conventions for N, D and C: they are refused or warned of."""

import dataclasses
import math

import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.fit import Refusal
from sweep.fit.table.points import read_table
from tests.fit.one_method import answer
from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token

QUICK = FitConfig(n_bootstrap=20)
BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12)
GRID = isoflop_points(
    TINY, BUDGETS, n_sizes=5, span=3, flops_per_token=tiny_flops_per_token, labelled=True,
    sd=0.002, rng=np.random.default_rng(0),
)  # fmt: skip


def changed(rows, **factors):
    """Return the grid with each column multiplied by its factor in these rows."""
    return [
        dataclasses.replace(
            point, **{name: getattr(point, name) * factor for name, factor in factors.items()}
        )
        if row in rows
        else point
        for row, point in enumerate(GRID)
    ]


ALL = range(len(GRID))


@pytest.mark.parametrize(
    ("points", "kind", "words"),
    [
        (changed(ALL, flops=1 / 8.64e19), "units", "PF-days"),
        (changed(ALL, n_params=1e-6), "units", '--column n_params="n_params*1e9"'),
        (changed([7], flops=1 / 8.64e19), "mixed_counting", "row 8 is "),
        (changed([0], flops=8), "mixed_counting", "row 1 is "),
        (changed([19], n_tokens=1 / 8), "mixed_counting", "row 20 is "),
        (changed([3, 9], flops=8), "mixed_counting", "2 rows in all"),
    ],
)
@pytest.mark.parametrize("method", ["isoflop", "parametric"])
def test_other_units_are_refused_and_the_row_is_named(points, kind, words, method):
    found = answer(points, method, QUICK)
    assert isinstance(found, Refusal)
    assert found.kind == kind
    assert words in found.reason


def test_rows_of_another_convention_are_warned_of():
    law = answer(changed(range(0, 20, 2), flops=1.3), "parametric", QUICK)
    (warning,) = [warning for warning in law.warnings if warning.startswith("C/D scatters by 1")]
    assert "count N, D or C differently" in warning
    assert answer(GRID, "parametric", QUICK).warnings == ()


@pytest.mark.parametrize("n_sizes", [3, 4, 9])
def test_consistent_tables_are_accepted(n_sizes):
    """Tiny decoders over a factor of 1000 in N; attention costs up to three times their parameters."""
    sizes = np.geomspace(2e3, 2e6, n_sizes)
    rows = [(n, d) for n in sizes for d in (1e6, 3e6, 1e7, 3e7)]
    points = [
        dataclasses.replace(
            GRID[0], n_params=n, n_tokens=d, flops=d * tiny_flops_per_token(n), flops_budget=None,
            loss=TINY.loss(n, d),
        )
        for n, d in rows
    ]  # fmt: skip
    assert not isinstance(answer(points, "parametric", QUICK), Refusal)


def test_a_budget_of_runs_with_unequal_flops_is_left_out():
    """Budgets labelled in 6 N D but costed in exact FLOPs, dominated by attention at small N."""
    points = [
        dataclasses.replace(
            point, flops=point.flops_budget * (1e4 / point.n_params) ** 0.15,
            n_tokens=point.flops_budget / 6 / point.n_params,
        )
        for point in GRID
    ]  # fmt: skip
    found = answer(points, "isoflop", QUICK)
    assert isinstance(found, Refusal)
    assert "the FLOPs of its points differ by a factor" in found.reason
    unlabelled = [dataclasses.replace(point, flops_budget=None) for point in GRID]
    for sound in (GRID, unlabelled):
        assert not isinstance(answer(sound, "isoflop", QUICK), Refusal)


def test_a_budget_of_unequal_flops_does_not_contribute_to_the_noise():
    wild = [
        dataclasses.replace(point, flops=point.flops * math.exp(0.6 * math.sin(row)))
        if point.flops_budget == BUDGETS[0]
        else point
        for row, point in enumerate(GRID)
    ]
    without = [point for point in GRID if point.flops_budget != BUDGETS[0]]
    law, expected = answer(wild, "isoflop", QUICK), answer(without, "isoflop", QUICK)
    assert [budget.status for budget in law.budgets] == ["unequal", "ok", "ok", "ok"]
    assert (law.residual_sd, law.residual_dof) == pytest.approx((expected.residual_sd, expected.residual_dof))


def test_an_optimum_spends_its_budget_at_any_extrapolation():
    """f is curved, so a power law of D next to one of N would cost more than C, increasingly with C."""
    noise_free = isoflop_points(TINY, BUDGETS, n_sizes=5, span=3, flops_per_token=tiny_flops_per_token)
    law = answer(noise_free, "isoflop", QUICK)
    sizes = np.geomspace(1e3, 1e8, 200)
    law = law.with_family(sizes, np.array([tiny_flops_per_token(n) for n in sizes]))
    for reach in (1, 10, 100, 1000):
        flops = reach * BUDGETS[-1]
        found = law.optimum(np.array([flops]))
        paid = found.n_tokens_opt[0] * tiny_flops_per_token(found.n_params_opt[0])
        assert paid == pytest.approx(flops, rel=1e-3)
        truth = flops / tiny_flops_per_token(TINY.optimum_by_search(flops, tiny_flops_per_token))
        assert law.n_tokens_opt(flops) == pytest.approx(truth, rel=0.1)
    draws = law.optimum_draws(np.array([flops]))
    cost = draws.n_tokens_opt[:, 0] * [tiny_flops_per_token(n) for n in draws.n_params_opt[:, 0]]
    assert cost == pytest.approx(np.full(len(cost), flops), rel=1e-3)


def test_rows_wider_than_the_header_are_refused(tmp_path):
    path = tmp_path / "shift.csv"
    path.write_text("n_params,n_tokens,loss\n1e6,2e7,3.1,4\n")
    with pytest.raises(InputError, match=r"row 1 \(line 2\) has 4 values but the header names 3 columns"):
        read_table(path)
    path.write_text("n_params,n_tokens,loss\n1e6,2e7,3.1,\n2e6,2e7,3.0,\n")  # a comma that ends every line
    assert [(point.n_params, point.loss) for point in read_table(path)] == [(1e6, 3.1), (2e6, 3.0)]
    path.write_text('n_params,n_tokens,loss,note\n1e6,2e7,3.1,"a, b"\n')
    assert [point.n_params for point in read_table(path)] == [1e6]


def test_the_odd_row_is_found_among_many():
    """The refusal names the row whose FLOPs are wrong by a random factor of 7 to 1000, either way."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        row, factor = int(rng.integers(20)), math.exp(rng.uniform(math.log(7), math.log(1000)))
        found = answer(changed([row], flops=factor ** rng.choice([-1, 1])), "parametric", QUICK)
        assert isinstance(found, Refusal)
        assert f"of row {row + 1} is" in found.reason


@pytest.mark.parametrize("n_rows", [7, 8, 10, 12, 28])
@pytest.mark.parametrize("end", [0, -1])
def test_the_odd_row_is_found_at_either_end_of_the_sizes_too(n_rows, end):
    """At an end a curve through all rows follows the odd one, and its neighbours would be named."""
    sizes = np.geomspace(1e4, 1e6, n_rows)
    points = [
        dataclasses.replace(GRID[0], n_params=n, n_tokens=1e7, flops=1e7 * tiny_flops_per_token(n),
                            flops_budget=None, loss=TINY.loss(n, 1e7), name=f"run-{row}")
        for row, n in enumerate(sizes)
    ]  # fmt: skip
    points[end] = dataclasses.replace(points[end], flops=points[end].flops / 8.64e19)
    found = answer(points, "parametric", QUICK)
    assert found.kind == "mixed_counting"
    assert f"of run {points[end].name} is" in found.reason
    assert "rows in all" not in found.reason


def test_seeds_whose_losses_are_rounded_are_replicates(tmp_path):
    for rounded in (lambda x: round(x, 3), lambda x: float(np.float32(round(x, 3)))):
        twins = [
            dataclasses.replace(point, seed=seed, loss=rounded(point.loss))
            for point in GRID
            for seed in (0, 1)
        ]
        assert not isinstance(answer(twins, "parametric", QUICK), Refusal)


def test_an_unclosed_quote_is_an_error(tmp_path):
    path = tmp_path / "quote.csv"
    path.write_text('n_params,n_tokens,loss\n1e6,2e7,"' + "3.1,\n" * 60_000)
    with pytest.raises(InputError, match="cannot read it as csv"):
        read_table(path)
    path.write_text("\nn_params,n_tokens,loss\n\n1,2,3,9\n")
    with pytest.raises(InputError, match=r"row 1 \(line 4\) has 4 values"):
        read_table(path)
