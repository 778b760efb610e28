"""Bootstrap draws, compared with the laws they come from."""

import pytest

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
