"""Planted sweeps as the results that figures are drawn from."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.records import CurvePoint
from sweep.report.results import SweepResults
from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token

BUDGETS = (1e11, 4e11, 1.6e12)
EDGE_BUDGET = 6.4e12
CONFIG = FitConfig(n_bootstrap=60, methods=("isoflop", "parametric"))
EXCLUDED, DIVERGED = 1, 7  # indices of points


@cache
def planted_sweep() -> SweepResults:
    """Return a small sweep: a point excluded, one diverged, a fourth budget with its minimum at the edge."""
    rng = np.random.default_rng(0)
    options = {"flops_per_token": tiny_flops_per_token, "labelled": True, "rng": rng, "sd": 0.004}
    points = isoflop_points(TINY, BUDGETS, n_sizes=6, span=3, **options)
    points += isoflop_points(TINY, (EDGE_BUDGET,), n_sizes=4, span=1.5, offset=0.3, **options)
    points = [dataclasses.replace(p, run_key=f"{i:016x}", name=f"run{i}") for i, p in enumerate(points)]
    points[EXCLUDED] = dataclasses.replace(points[EXCLUDED], loss=points[EXCLUDED].loss * 1.2)
    points[DIVERGED] = dataclasses.replace(points[DIVERGED], status="diverged", loss=None)
    found = fit(points, CONFIG, excluded={points[EXCLUDED].run_key: "by hand"})
    return SweepResults(fit=found, points=points, curves={p.run_key: _curve(p) for p in points})


def _curve(point):
    return tuple(
        CurvePoint(
            step=step,
            n_tokens=int(point.n_tokens * step / 10),
            flops=int(point.flops * step / 10),
            train_loss=float("nan") if step == 10 and point.loss is None else 5.0 - 0.2 * step,
            lr=1e-3,
        )
        for step in (1, 2, 5, 10)
    )


def planted_surfaces() -> SweepResults:
    """Return thirty points at five budgets, with two fitted surfaces and a backtest."""
    points = isoflop_points(
        TINY,
        tuple(np.geomspace(1e11, 1e13, 5)),
        n_sizes=6,
        span=3,
        flops_per_token=tiny_flops_per_token,
        sd=0.003,
        rng=np.random.default_rng(0),
    )
    methods = ("isoflop", "parametric", "overtraining")
    found = fit(points, FitConfig(methods=methods, n_bootstrap=50))
    return SweepResults(fit=found, points=points)
