"""The numbers of the figures, against the fit they come from."""

import dataclasses

import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.records import CurvePoint
from sweep.report.curves import isoflop_curves, optimum_curves, optimum_marks, training_curves
from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token

BUDGETS = (1e11, 4e11, 1.6e12)
CONFIG = FitConfig(n_bootstrap=60, methods=("isoflop", "parametric"))


def planted_sweep():
    """Points of a small sweep: one excluded, one diverged, a fourth budget whose minimum is at its edge."""
    rng = np.random.default_rng(0)
    options = {"flops_per_token": tiny_flops_per_token, "labelled": True, "rng": rng, "sd": 0.004}
    points = isoflop_points(TINY, BUDGETS, n_sizes=6, span=3, **options)
    points += isoflop_points(TINY, (6.4e12,), n_sizes=4, span=1.5, offset=0.3, **options)
    points = [dataclasses.replace(p, run_key=f"{i:016x}", name=f"run{i}") for i, p in enumerate(points)]
    points[1] = dataclasses.replace(points[1], loss=points[1].loss * 1.2)
    points[7] = dataclasses.replace(points[7], status="diverged", loss=None)
    curves = {
        p.run_key: tuple(
            CurvePoint(
                step=step,
                n_tokens=int(p.n_tokens * step / 10),
                flops=int(p.flops * step / 10),
                train_loss=float("nan") if step == 10 and p.loss is None else 5.0 - 0.2 * step,
                lr=1e-3,
            )
            for step in (1, 2, 5, 10)
        )
        for p in points
    }
    return fit(points, CONFIG, excluded={points[1].run_key: "by hand"}), points, curves


@pytest.fixture(scope="module")
def sweep():
    return planted_sweep()


def test_isoflop_curves_show_every_point_once(sweep):
    found, points, _ = sweep
    curves = isoflop_curves(found, points)
    assert [curve.flops_budget for curve in curves] == [*BUDGETS, 6.4e12]
    assert [curve.status for curve in curves] == ["ok", "ok", "ok", "edge"]
    assert [len(curve.loss) for curve in curves] == [5, 5, 6, 4]
    assert [len(curve.excluded_loss) for curve in curves] == [1, 0, 0, 0]
    assert curves[0].excluded_loss[0] == points[1].loss


def test_parabolas_pass_their_minimum(sweep):
    found, points, _ = sweep
    for curve, budget in zip(isoflop_curves(found, points), found.methods["isoflop"].budgets, strict=True):
        assert (curve.n_params_opt, curve.loss_opt) == (budget.n_params_opt, budget.loss_opt)
        if curve.n_params_opt is None:
            continue
        nearest = np.argmin(curve.parabola_loss)
        assert curve.parabola_loss[nearest] == pytest.approx(curve.loss_opt, abs=1e-3)
        assert curve.parabola_n_params[nearest] == pytest.approx(curve.n_params_opt, rel=0.05)
        assert curve.n_params_interval[0] < curve.n_params_opt < curve.n_params_interval[1]


def test_curves_are_there_even_where_the_method_refused(sweep):
    _, points, _ = sweep
    refused = fit([p for p in points if p.flops_budget != BUDGETS[0]], CONFIG)
    assert "isoflop" not in refused.laws
    assert [curve.status for curve in isoflop_curves(refused, points)] == ["ok", "ok", "ok", "edge"]


def test_exponents_of_another_counting_and_unproved_intervals_are_marked():
    rng = np.random.default_rng(0)
    points = [
        dataclasses.replace(p, n_params_non_embedding=0.5 * p.n_params)
        for p in isoflop_points(TINY, np.geomspace(1e11, 1e13, 5), n_sizes=7, span=3, sd=0.003, rng=rng)
    ]
    found = fit(points, dataclasses.replace(CONFIG, methods=("envelope", "parametric", "kaplan")))
    told = {curve.method: (curve.doubtful, curve.without_embeddings) for curve in optimum_curves(found)}
    assert told == {"envelope": (True, False), "parametric": (False, False), "kaplan": (False, True)}


def test_optimum_curves_and_bands_are_the_laws(sweep):
    found, _, _ = sweep
    curves = optimum_curves(found)
    assert {(c.method, c.quantity) for c in curves} == {
        (m, q) for m in ("isoflop", "parametric") for q in ("n_params_opt", "n_tokens_opt")
    }
    for curve in curves:
        law = found.methods[curve.method]
        flops = float(curve.flops[40])
        assert curve.estimate[40] == law.estimate(curve.quantity, flops)
        assert (curve.band[0][40], curve.band[1][40]) == pytest.approx(law.interval(curve.quantity, flops))
        assert curve.flops[-1] == pytest.approx(10 * curve.flops_max)
        assert curve.exponent_interval[0] < curve.exponent < curve.exponent_interval[1]
    marks = {mark.quantity: mark for mark in optimum_marks(found)}
    assert marks["n_params_opt"].flops == pytest.approx(BUDGETS, rel=1e-6)
    assert (marks["n_tokens_opt"].low < marks["n_tokens_opt"].estimate).all()


def test_training_curves_join_their_points(sweep):
    found, points, curves = sweep
    drawn = {curve.run_key: curve for curve in training_curves(found, points, curves)}
    assert len(drawn) == len(points)
    assert [drawn[p.run_key].fitted for p in points[:8]] == [True, False, *[True] * 5, False]
    diverged = drawn[points[7].run_key]
    assert diverged.final_loss is None
    assert np.isfinite(diverged.train_loss).all()
    assert drawn[points[0].run_key].final_loss == points[0].loss
    (unknown,) = training_curves(found, [], {"elsewhere": curves[points[0].run_key]})
    assert (unknown.flops_budget, unknown.final_loss, unknown.fitted) == (None, None, False)
