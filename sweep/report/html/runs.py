"""The runs of a report: one column per field, thinned training curves, and where time went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweep.fit.fit import Fit
from sweep.fit.methods.parametric import ParametricLaw
from sweep.fit.table.points import Table
from sweep.records import CurvePoint, Point
from sweep.report.html.numbers import rounded
from sweep.report.results import SweepResults
from sweep.report.series.utilisation import device_rates

FIELDS = (
    "run_key name status flops_budget flops n_params n_params_non_embedding n_tokens loss loss_stderr "
    "train_loss bits_per_byte d_model n_layers n_heads batch_tokens n_steps lr_peak weight_decay schedule "
    "optimizer parametrization seed epochs wall_time_s tokens_per_second mfu device attempts"
).split()
CURVE_NUMBERS = 60_000  # points of all curves of a report together
MAX_CURVE, MIN_CURVE = 80, 12  # points of one curve
CURVE_DIGITS = 4


def labels(points: Sequence[Point]) -> list[str]:
    """Return the name of each point that fits use: its run key, name or row."""
    rows = points.rows if isinstance(points, Table) else [f"row {row + 1}" for row in range(len(points))]
    return [point.run_key or point.name or row for point, row in zip(points, rows, strict=True)]


def run_columns(results: SweepResults) -> dict[str, Any]:
    """Return the runs as columns without those that are empty, and why a run is not fitted."""
    points = results.points
    excluded, outliers = results.excluded, _outliers(results.fit)
    names = labels(points)
    columns = {field: [getattr(point, field) for point in points] for field in FIELDS}
    known = {
        field: rounded(values)
        for field, values in columns.items()
        if any(value is not None for value in values)
    }
    return {
        "label": names,
        "reason": [
            _reason(point, label, excluded, outliers) for point, label in zip(points, names, strict=True)
        ],
        **known,
    }


def _reason(point: Point, label: str, excluded: Mapping[str, str], outliers: Mapping[str, str]) -> str | None:
    for key in (label, point.name):
        if key is not None and key in excluded:
            return excluded[key]
    return outliers.get(label)


def _outliers(fit: Fit) -> dict[str, str]:
    without = getattr(fit.answer, "without", ())
    return {run.run_key: "outlier: left out of the answer" for run in without}


def curve_columns(results: SweepResults, index: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the training curves, thinned evenly in ln C so that all of them fit the page."""
    curves = [(key, curve) for key, curve in results.curves.items() if key in index]
    most = min(MAX_CURVE, max(MIN_CURVE, CURVE_NUMBERS // max(1, len(curves))))
    found = []
    for key, curve in curves:
        shown = [record for record in curve if math.isfinite(record.train_loss) and record.flops > 0]
        kept = thinned(shown, most)
        if kept:
            found.append(
                {
                    "run": index[key],
                    "flops": rounded([float(record.flops) for record in kept], CURVE_DIGITS),
                    "loss": rounded([record.train_loss for record in kept], CURVE_DIGITS),
                }
            )
    return found


def thinned(curve: Sequence[CurvePoint], most: int) -> list[CurvePoint]:
    """Return at most `most` records of a curve, the first and the last among them, evenly in ln C."""
    if len(curve) <= most:
        return list(curve)
    log_c = np.log([record.flops for record in curve])
    wanted = np.linspace(log_c[0], log_c[-1], most)
    rows = np.unique(np.searchsorted(log_c, wanted).clip(0, len(curve) - 1))
    return [curve[row] for row in rows.tolist()]


def irreducible_loss(fit: Fit) -> float:
    """Return E of the parametric surface, nats per token; 0 where the points do not identify it."""
    law = fit.methods.get("parametric")
    if not isinstance(law, ParametricLaw):
        return 0.0
    low, _ = law.ci.get("E", (1.0, 1.0))
    return float(law.constants["E"]) if low > 0 else 0.0


def device_rows(results: SweepResults) -> list[dict[str, Any]]:
    """Return the throughput of the finished runs by kind of device."""
    return [
        {
            "device": rates.device,
            "n_params": rounded(rates.n_params),
            "flops_per_second": rounded(rates.flops_per_second),
            "peak": rates.peak_flops_per_second,
            "utilisation": rounded(rates.utilisation),
        }
        for rates in device_rates(results)
    ]
