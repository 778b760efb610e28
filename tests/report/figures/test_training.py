"""Training curves, joined with the points of their runs."""

import numpy as np

from sweep.report.results import SweepResults
from sweep.report.series.training import training_curves
from tests.report.figures.planted import DIVERGED, EXCLUDED


def test_curves_join_their_points(sweep):
    curves = {curve.run_key: curve for curve in training_curves(sweep)}
    assert len(curves) == len(sweep.points)
    not_fitted = {run_key for run_key, curve in curves.items() if not curve.fitted}
    assert not_fitted == {sweep.points[EXCLUDED].run_key, sweep.points[DIVERGED].run_key}
    diverged = curves[sweep.points[DIVERGED].run_key]
    assert diverged.final_loss is None
    assert np.isfinite(diverged.train_loss).all()
    assert curves[sweep.points[0].run_key].final_loss == sweep.points[0].loss


def test_a_run_without_a_point_or_without_a_loss(sweep):
    curve = sweep.curves[sweep.points[0].run_key]
    (unknown,) = training_curves(SweepResults(fit=sweep.fit, points=[], curves={"other": curve, "new": ()}))
    assert unknown.run_key == "other"
    assert (unknown.flops_budget, unknown.final_loss, unknown.fitted) == (None, None, False)
