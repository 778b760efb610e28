"""Training curves for the fit: one a run, joined with the data of its point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.records import CurvePoint, Point

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LossCurve:
    """Training loss of one run; arrays of shape (n,), in the order of training."""

    cluster: int  # cluster index of the run's point
    n_params: float
    n_params_non_embedding: float | None
    batch_tokens: float | None
    schedule: str | None
    steps: FloatArray
    n_tokens: FloatArray
    flops: FloatArray
    loss: FloatArray  # training loss, nats per token
    heldout_gap: float  # held-out loss at the end minus the training loss there


def loss_curves(
    points: Sequence[Point], cluster: IntArray, curves: Mapping[str, Sequence[CurvePoint]]
) -> tuple[LossCurve, ...]:
    """Return the curves of `points` that have records with finite losses and FLOPs above zero."""
    found = []
    for point, index in zip(points, cluster.tolist(), strict=True):
        records = [
            record
            for record in curves.get(point.run_key or "", ())
            if math.isfinite(record.train_loss) and record.train_loss > 0 and record.flops > 0
        ]
        if records and point.n_params is not None and point.loss is not None:
            losses = np.array([record.train_loss for record in records], dtype=np.float64)
            found.append(
                LossCurve(
                    cluster=index,
                    n_params=point.n_params,
                    n_params_non_embedding=point.n_params_non_embedding,
                    batch_tokens=point.batch_tokens,
                    schedule=point.schedule,
                    steps=np.array([record.step for record in records], dtype=np.float64),
                    n_tokens=np.array([record.n_tokens for record in records], dtype=np.float64),
                    flops=np.array([record.flops for record in records], dtype=np.float64),
                    loss=losses,
                    heldout_gap=point.loss - float(losses[-1]),
                )
            )
    return tuple(found)
