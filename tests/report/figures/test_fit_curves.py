"""The numbers of the quality figures, against the laws and the planted surface."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.report.fit_curves import backtest_marks, clouds, isoloss, residuals
from sweep.report.fit_figures import backtest_figure, cloud_figure, isoloss_figure, residual_figure
from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token

CONFIG = FitConfig(methods=("isoflop", "parametric", "overtraining"), n_bootstrap=50)


@pytest.fixture(scope="module")
def sweep():
    points = isoflop_points(
        TINY,
        tuple(np.geomspace(1e11, 1e13, 5)),
        n_sizes=6,
        span=3,
        flops_per_token=tiny_flops_per_token,
        sd=0.003,
        rng=np.random.default_rng(0),
    )
    return fit(points, CONFIG), points


def test_the_frontier_is_the_least_loss_of_every_column(sweep):
    contours = isoloss(*sweep)
    step = contours.n_params[1] / contours.n_params[0]
    for column in (0, 40, 100):
        best = contours.n_params[np.argmin(contours.loss[:, column])]
        assert abs(math.log(best / contours.frontier_n_params[column])) <= math.log(step)
    assert len(contours.point_loss) == 30
    assert contours.levels[-1] == contours.point_loss.max()


def test_contours_are_cut_only_where_their_labels_stand(sweep):
    """Labels are placed, and the lines cut for them, on the axes as they are drawn."""
    figure = isoloss_figure(isoloss(*sweep))
    figure.draw_without_rendering()
    (lines,) = [child for child in figure.axes[0].collections if hasattr(child, "levels")]
    to_pixels = figure.axes[0].transData.transform
    gaps = []
    for path in lines.get_paths():
        starts = np.flatnonzero(path.codes == path.MOVETO)
        ends = [to_pixels(piece) for piece in np.split(path.vertices, starts) if len(piece)]
        gaps += [float(np.hypot(*(after[0] - before[-1]))) for before, after in pairwise(ends)]
    assert gaps
    assert max(gaps) < 0.15 * figure.axes[0].bbox.width


def test_residuals_are_those_of_the_objective(sweep):
    found, _ = sweep
    by_method = {r.method: r for r in residuals(*sweep)}
    assert by_method.keys() == {"parametric", "overtraining"}
    for name, shown in by_method.items():
        size = np.abs(shown.residual)
        inside = np.minimum(size, shown.huber_delta)
        assert (inside * (size - 0.5 * inside)).sum() == pytest.approx(
            found.methods[name].objective, rel=1e-9
        )


def test_clouds_hold_the_draws(sweep):
    found, _ = sweep
    by_method = {cloud.method: cloud for cloud in clouds(found)}
    shown = by_method["parametric"]
    assert len(shown.exponent) == 50
    assert shown.exponent_estimate == pytest.approx(found.methods["parametric"].to_json()["a"])
    assert shown.tokens_per_param_estimate == pytest.approx(
        found.methods["parametric"].estimate("tokens_per_param_opt", shown.flops)
    )
    assert by_method["isoflop"].exponent == pytest.approx(found.methods["isoflop"].draws[:, 1])


def test_backtest_marks_are_the_entries_of_fit_json(sweep):
    found, _ = sweep
    marks = {mark.method: mark for mark in backtest_marks(found)}
    entry = found.to_json()["backtest"]["methods"]["parametric"]["budgets"]
    assert marks["parametric"].loss_error.tolist() == [budget["loss_opt_error"] for budget in entry]
    assert (marks["parametric"].flops > marks["parametric"].largest_fitted_flops).all()


def test_every_quality_figure_draws_and_nothing_without_numbers(sweep):
    found, points = sweep
    for figure in (
        isoloss_figure(isoloss(found, points)),
        residual_figure(residuals(found, points)),
        cloud_figure(clouds(found)),
        backtest_figure(backtest_marks(found)),
    ):
        figure.canvas.draw()
    bare = fit(points[:6], dataclasses.replace(CONFIG, n_bootstrap=0))
    assert isoloss(bare, points[:6]) is None
    assert [isoloss_figure(None), residual_figure(()), cloud_figure(()), backtest_figure(())] == [None] * 4
    assert clouds(bare) == backtest_marks(bare) == ()
