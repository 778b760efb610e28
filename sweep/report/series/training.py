"""Training curves: loss against compute for every run, with the held-out loss at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.records import CurvePoint, Point
from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingCurve:
    """One run: training loss against FLOPs so far, and its held-out loss at the end."""

    run_key: str
    flops_budget: float | None
    flops: FloatArray  # (n,) n > 0
    train_loss: FloatArray  # (n,) nats per token
    final_flops: float | None
    final_loss: float | None  # held out; None if the run diverged
    fitted: bool


def training_curves(results: SweepResults) -> tuple[TrainingCurve, ...]:
    """Return a curve for each run that has logged a finite loss, joined with its point if it has one."""
    by_key = {point.run_key: point for point in results.points if point.run_key is not None}
    excluded = set(results.excluded)
    curves = (
        _training_curve(run_key, curve, by_key.get(run_key), excluded)
        for run_key, curve in results.curves.items()
    )
    return tuple(curve for curve in curves if len(curve.flops))


def _training_curve(
    run_key: str, curve: Sequence[CurvePoint], point: Point | None, excluded: set[str]
) -> TrainingCurve:
    names = {run_key} if point is None or point.name is None else {run_key, point.name}
    shown = [record for record in curve if np.isfinite(record.train_loss) and record.flops > 0]
    return TrainingCurve(
        run_key=run_key,
        flops_budget=None if point is None else point.flops_budget,
        flops=np.array([record.flops for record in shown], dtype=np.float64),
        train_loss=np.array([record.train_loss for record in shown], dtype=np.float64),
        final_flops=None if point is None else point.flops,
        final_loss=None if point is None else point.loss,
        fitted=point is not None and point.status == "done" and not names & excluded,
    )
