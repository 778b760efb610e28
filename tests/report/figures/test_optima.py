"""Optima over compute, compared with the laws they come from."""

import dataclasses

import numpy as np
import pytest

from sweep.fit import fit
from sweep.report.figures.optima import optimum_figure, optimum_panels
from sweep.report.figures.results import SweepResults
from tests.fit.planted import TINY, isoflop_points
from tests.report.figures.planted import BUDGETS, CONFIG


def test_curves_and_bands_are_those_of_the_laws(sweep):
    panels = optimum_panels(sweep)
    assert [panel.quantity for panel in panels] == ["n_params_opt", "n_tokens_opt"]
    for panel in panels:
        assert [curve.method for curve in panel.curves] == ["isoflop", "parametric"]
        for curve in panel.curves:
            law, flops = sweep.fit.methods[curve.method], float(curve.flops[40])
            assert curve.estimate[40] == law.estimate(panel.quantity, flops)
            low, high = law.interval(panel.quantity, flops)
            assert (curve.band[0][40], curve.band[1][40]) == pytest.approx((low, high))
            assert curve.flops[-1] == pytest.approx(10 * curve.flops_max)
            assert curve.exponent_interval[0] < curve.exponent < curve.exponent_interval[1]
        assert panel.marks.flops == pytest.approx(BUDGETS, rel=1e-6)
        assert (panel.marks.low < panel.marks.estimate).all()


def test_legends_name_the_exponents_and_cover_no_data(sweep):
    figure = optimum_figure(optimum_panels(sweep))
    figure.canvas.draw()
    for axes, symbol in zip(figure.axes, "ab", strict=True):
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels[0].startswith(f"isoflop:  ${symbol}$ = 0.")
        assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())
        assert not any("*" in label for label in labels)


def test_exponents_of_non_embedding_n_and_unverified_intervals_are_marked():
    rng = np.random.default_rng(0)
    points = [
        dataclasses.replace(p, n_params_non_embedding=0.5 * p.n_params)
        for p in isoflop_points(TINY, np.geomspace(1e11, 1e13, 5), n_sizes=7, span=3, sd=0.003, rng=rng)
    ]
    found = fit(points, dataclasses.replace(CONFIG, methods=("envelope", "parametric", "kaplan")))
    panels = optimum_panels(SweepResults(fit=found, points=points))
    marked = {curve.method: (curve.unverified, curve.without_embeddings) for curve in panels[0].curves}
    assert marked == {"envelope": (True, False), "parametric": (False, False), "kaplan": (False, True)}
    legend = optimum_figure(panels).axes[0].get_legend()
    envelope, parametric, kaplan, footnote = [text.get_text() for text in legend.get_texts()]
    assert envelope.endswith("]*")
    assert parametric.endswith("]")
    assert kaplan.endswith("(non-embedding $N$)")
    assert footnote == "* coverage of the interval not verified"
