"""Residuals, compared with the objective of the fit."""

import itertools

import numpy as np
import pytest

from sweep.report.figures.residuals import residual_figure
from sweep.report.series.residuals import residuals


def test_residuals_are_those_of_the_objective(surfaces):
    by_method = {shown.method: shown for shown in residuals(surfaces)}
    assert by_method.keys() == {"isoflop", "parametric", "overtraining"}
    isoflop = by_method.pop("isoflop")
    squares = sum(budget.parabola.residual_squares for budget in surfaces.fit.methods["isoflop"].budgets)
    assert (isoflop.residual**2).sum() == pytest.approx(squares, rel=0.02)
    for name, shown in by_method.items():
        size = np.abs(shown.residual)
        inside = np.minimum(size, shown.huber_delta)
        objective = (inside * (size - 0.5 * inside)).sum()
        assert objective == pytest.approx(surfaces.fit.methods[name].objective, rel=1e-9)
        assert shown.sd == pytest.approx(np.sqrt((shown.residual**2).mean()))


def test_labels_of_compute_stand_apart_and_within_the_points(surfaces):
    figure = residual_figure(residuals(surfaces))
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 2
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
