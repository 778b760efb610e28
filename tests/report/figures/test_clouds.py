"""Bootstrap draws, compared with the laws they come from."""

import dataclasses

import numpy as np
import pytest

from sweep.report.figures.clouds import cloud_figure
from sweep.report.series.clouds import clouds


def test_clouds_hold_the_draws(surfaces):
    methods = surfaces.fit.methods
    by_method = {cloud.method: cloud for cloud in clouds(surfaces)}
    shown = by_method["parametric"]
    assert len(shown.exponent) == 50
    assert shown.exponent_estimate == pytest.approx(methods["parametric"].to_json()["a"])
    assert shown.tokens_per_param_estimate == pytest.approx(
        methods["parametric"].estimate("tokens_per_param_opt", shown.flops)
    )
    assert by_method["isoflop"].exponent == pytest.approx(methods["isoflop"].draws[:, 1])


def test_draws_decades_away_are_counted_and_leave_the_others_visible(surfaces):
    cloud = {cloud.method: cloud for cloud in clouds(surfaces)}["parametric"]
    far = dataclasses.replace(
        cloud,
        exponent=np.append(cloud.exponent, 12.0),
        tokens_per_param=np.append(cloud.tokens_per_param, 1e-9),
    )
    (plain,), (axes,) = cloud_figure([cloud]).axes, cloud_figure([far]).axes
    assert axes.get_title(loc="left") == "Bootstrap draws (1 outside)"
    assert np.ptp(axes.get_xlim()) < 2 * np.ptp(plain.get_xlim())
    assert np.ptp(np.log(axes.get_ylim())) < 2 * np.ptp(np.log(plain.get_ylim()))
