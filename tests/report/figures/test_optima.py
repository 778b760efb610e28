"""Optima over compute, compared with the laws they come from."""

import dataclasses

import numpy as np
import pytest

from sweep.fit import fit
from sweep.report.figures.optima import optimum_figure
from sweep.report.results import SweepResults
from sweep.report.series.optima import loss_panels, optimum_panels, ratio_panels
from tests.fit.planted import TINY, isoflop_points
from tests.report.figures.planted import BUDGETS, CONFIG


def test_curves_and_bands_are_those_of_the_laws(sweep):
    panels = optimum_panels(sweep)
    assert [panel.quantity for panel in panels] == ["n_params_opt", "n_tokens_opt"]
    for panel in panels:
        assert [curve.method for curve in panel.curves] == ["answer", "isoflop", "parametric"]
        for curve in panel.curves[1:]:
            law, flops = sweep.fit.methods[curve.method], float(curve.flops[40])
            assert curve.estimate[40] == law.estimate(panel.quantity, flops)
            low, high = law.interval(panel.quantity, flops)
            assert (curve.band[0][40], curve.band[1][40]) == pytest.approx((low, high))
            assert curve.flops[-1] == pytest.approx(10 * curve.flops_max)
            assert curve.slope_interval[0] < curve.slope < curve.slope_interval[1]
            within = curve.flops <= curve.flops_max
            drawn = np.polyfit(np.log(curve.flops[within]), np.log(curve.estimate[within]), 1)[0]
            assert curve.slope == pytest.approx(drawn, rel=0.02)
        assert panel.marks.flops == pytest.approx(BUDGETS, rel=1e-6)
        assert (panel.marks.low < panel.marks.estimate).all()


def test_legends_name_the_exponents_and_cover_no_data(sweep):
    figure = optimum_figure(optimum_panels(sweep))
    figure.canvas.draw()
    for axes, symbol in zip(figure.axes, "ab", strict=True):
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels[1].startswith(f"isoflop:  ${symbol}$ = 0.")
        assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())
        assert not any("*" in label for label in labels)


def test_slopes_of_non_embedding_laws_are_those_of_the_drawn_line():
    rng = np.random.default_rng(0)
    points = [
        dataclasses.replace(p, n_params_non_embedding=0.5 * p.n_params)
        for p in isoflop_points(TINY, np.geomspace(1e11, 1e13, 5), n_sizes=7, span=3, sd=0.003, rng=rng)
    ]
    found = fit(points, dataclasses.replace(CONFIG, methods=("envelope", "parametric", "kaplan")))
    panels = optimum_panels(SweepResults(fit=found, points=points))
    assert {c.method: c.unverified for c in panels[0].curves[1:]} == {
        "envelope": True,
        "parametric": False,
        "kaplan": False,
    }
    kaplan = panels[0].curves[3]
    ends = found.laws["kaplan"].optimum(np.array(found.flops_range)).n_params_opt
    assert kaplan.slope == pytest.approx(np.log(ends[1] / ends[0]) / np.log(1e13 / 1e11), rel=1e-3)
    legend = optimum_figure(panels).axes[0].get_legend()
    _, envelope, parametric, _, footnote = [text.get_text() for text in legend.get_texts()]
    assert envelope.endswith("]*")
    assert parametric.endswith("]")
    assert footnote == "* coverage of the interval not verified"


def test_the_loss_is_drawn_with_its_runs_and_the_ratio_is_that_of_the_optima(sweep):
    (loss,) = loss_panels(sweep)
    assert len(loss.run_loss) == sweep.fit.n_points
    answer = loss.curves[0]
    assert (answer.method, answer.slope) == ("answer", None)
    assert (answer.band[0] < answer.estimate).all()
    n_params, n_tokens = optimum_panels(sweep)
    (ratio,) = ratio_panels(sweep)
    of_optima = n_tokens.curves[1].estimate / n_params.curves[1].estimate
    assert ratio.curves[1].estimate == pytest.approx(of_optima)
    assert ratio.marks.estimate == pytest.approx(n_tokens.marks.estimate / n_params.marks.estimate)
