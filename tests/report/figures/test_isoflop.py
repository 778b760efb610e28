"""IsoFLOP curves, compared with the fit they come from."""

import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.report.figures.isoflop import isoflop_figure
from sweep.report.results import SweepResults
from sweep.report.series.isoflop import isoflop_curves
from tests.fit.planted import TINY, isoflop_points
from tests.report.figures.planted import BUDGETS, CONFIG, EDGE_BUDGET, EXCLUDED


def test_curves_show_every_point_once(sweep):
    curves = isoflop_curves(sweep)
    assert [curve.flops_budget for curve in curves] == [*BUDGETS, EDGE_BUDGET]
    assert [curve.status for curve in curves] == ["ok", "ok", "ok", "edge"]
    assert [len(curve.loss) for curve in curves] == [5, 5, 6, 4]
    assert [len(curve.excluded_loss) for curve in curves] == [1, 0, 0, 0]
    assert curves[0].excluded_loss[0] == sweep.points[EXCLUDED].loss


def test_parabolas_pass_their_minimum(sweep):
    for curve, budget in zip(isoflop_curves(sweep), sweep.fit.methods["isoflop"].budgets, strict=True):
        assert (curve.n_params_opt, curve.loss_opt) == (budget.n_params_opt, budget.loss_opt)
        if curve.n_params_opt is None:
            continue
        nearest = np.argmin(curve.parabola_loss)
        assert curve.parabola_loss[nearest] == pytest.approx(curve.loss_opt, abs=1e-3)
        assert curve.parabola_n_params[nearest] == pytest.approx(curve.n_params_opt, rel=0.05)
        assert curve.n_params_interval[0] < curve.n_params_opt < curve.n_params_interval[1]


def test_budgets_have_curves_when_the_method_refused(sweep):
    refused = fit([p for p in sweep.points if p.flops_budget != BUDGETS[0]], CONFIG)
    assert "isoflop" not in refused.laws
    curves = isoflop_curves(SweepResults(fit=refused, points=sweep.points))
    assert [curve.status for curve in curves] == ["ok", "ok", "ok", "edge"]


def test_the_legend_names_budgets_and_symbols_and_covers_no_data(sweep):
    figure = isoflop_figure(isoflop_curves(sweep))
    figure.canvas.draw()
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[3] == r"$6.4\times10^{12}$ FLOPs"  # as the curves stand, from the top
    assert labels[4:] == ["run", "minimum with interval", "no usable minimum", "excluded run"]
    assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())


def test_many_budgets_get_a_colour_bar():
    points = isoflop_points(TINY, tuple(np.geomspace(1e11, 1e15, 14)), n_sizes=4, span=3, labelled=True)
    found = fit(points, FitConfig(n_bootstrap=0))
    figure = isoflop_figure(isoflop_curves(SweepResults(fit=found, points=points)))
    assert len(figure.axes) == 2
    figure.canvas.draw()
