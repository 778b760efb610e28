"""Validations as a figure: predicted and measured values at each budget."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from sweep.report.figures.validations import validation_figure
from sweep.report.series.validations import comparisons
from sweep.store.validations import Registration, Validation, ValidationRun
from sweep.study.scores import score
from tests.fit.planted import TINY, isoflop_points


def validation(flops: float, offset: float) -> Validation:
    """A scored prediction of three planted sizes around the optimum times `offset`."""
    points = isoflop_points(TINY, (flops,), n_sizes=3, span=1.7, offset=offset)
    keys = [f"{index:016x}" for index in range(3)]
    runs = tuple(
        ValidationRun(
            run_key=key,
            name=key,
            d_model=8 * (index + 1),
            n_layers=2,
            n_params=round(point.n_params),
            n_tokens=round(point.n_tokens),
            flops=round(flops),
            seed=0,
        )
        for index, (key, point) in enumerate(zip(keys, points, strict=True))
    )
    n_opt, d_opt = TINY.optimum_6nd(flops)
    loss = TINY.loss(n_opt, d_opt)
    registration = Registration(
        registered_at="2026-01-01T00:00:00.000+00:00",
        flops=flops,
        arm=None,
        reach=4.0,
        confidence=0.95,
        n_params_opt=n_opt,
        n_params_opt_interval=(n_opt / 1.2, n_opt * 1.2),
        n_tokens_opt=d_opt,
        n_tokens_opt_interval=(d_opt / 1.2, d_opt * 1.2),
        loss_opt=loss,
        loss_opt_interval=(loss * 0.99, loss * 1.01),
        loss_interval=(loss * 0.98, loss * 1.02),
        run_noise_sd=0.002,
        n_points=20,
        points_sha256="0" * 64,
        code_version="0",
        runs=runs,
    )
    scored = score(registration, dict(zip(keys, points, strict=True)))
    assert scored is not None
    return scored


def test_a_panel_compares_loss_and_n_at_every_budget(sweep):
    near, far = validation(1e12, 1.0), validation(4e12, 0.3)
    assert Validation.from_json(near.to_json()) == near
    results = dataclasses.replace(sweep, validations=[far, near])
    loss, size = comparisons(results)
    assert loss.flops.tolist() == [1e12, 4e12]
    assert loss.measured.tolist() == [near.loss, far.loss]
    assert size.measured[0] == pytest.approx(TINY.optimum_6nd(1e12)[0], rel=0.05)
    assert math.isnan(size.measured[1])  # its best size is the largest one
    assert np.isfinite(size.measured_interval[0]).all()
    figure = validation_figure([loss, size])
    figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Validation: loss of the best size",
        "Validation: optimal $N$",
    ]
    assert comparisons(dataclasses.replace(sweep, validations=())) == ()
