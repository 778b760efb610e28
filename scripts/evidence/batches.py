"""Critical batch sizes: gradient-noise scales of finished runs, and losses over a sweep of batches.

Legend: B tokens per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scripts.evidence.studies import STUDIES, Study, table, validation_keys

FloatArray = npt.NDArray[np.float64]

PRICE = 0.02
"""Loss over that of the best batch, in ln L, at which a batch is called critical here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoisePoint:
    """Noise scale of one finished run."""

    flops_budget: float
    loss: float  # held out, nats per token
    noise_scale: float  # tokens
    batch: float  # tokens per step of the run


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BatchCell:
    """Losses of one size and budget over batches, each at the best of its learning rates."""

    name: str
    batch: FloatArray  # (k,) tokens per step, ascending
    loss: FloatArray  # (k,) nats per token
    noise_scale: float  # mean over the batches, tokens

    @property
    def best(self) -> float:
        """Batch of the lowest loss."""
        return float(self.batch[np.argmin(self.loss)])

    @property
    def critical(self) -> float:
        """Batch above the best one at which the loss is e^PRICE times the lowest, by interpolation."""
        at = int(np.argmin(self.loss))
        excess = np.log(self.loss[at:] / self.loss[at])
        return float(np.exp(np.interp(PRICE, np.maximum.accumulate(excess), np.log(self.batch[at:]))))


def noise_points(study: Study | None = None) -> list[NoisePoint]:
    """Return the noise scales of the grid of a study, by default cpu_stdlib."""
    study = study or STUDIES["cpu_stdlib"]
    if not (study.directory / "points.csv").exists():
        return []
    points = table(study)
    tested = validation_keys(study)
    rows = zip(points.points, points.extras["b_simple_tokens"], points.extras["batch_tokens"], strict=True)
    return [
        NoisePoint(
            flops_budget=point.flops_budget,
            loss=point.loss,
            noise_scale=float(scale),
            batch=float(batch),
        )
        for point, scale, batch in rows
        if scale and point.run_key not in tested and point.loss is not None and point.flops_budget is not None
    ]


def batch_cells() -> list[BatchCell]:
    """Return the cells of the batch sweep by budget."""
    study = STUDIES["batches"]
    if not (study.directory / "points.csv").exists():
        return []
    points = table(study)
    rows = list(
        zip(points.points, points.extras["batch_tokens"], points.extras["b_simple_tokens"], strict=True)
    )
    budgets = sorted({point.flops_budget for point, _, _ in rows if point.flops_budget is not None})
    return [_cell(budget, [row for row in rows if row[0].flops_budget == budget]) for budget in budgets]


def _cell(budget: float, rows: Sequence[tuple]) -> BatchCell:
    best: dict[float, float] = {}
    for point, batch, _ in rows:
        if point.loss is not None:
            best[float(batch)] = min(point.loss, best.get(float(batch), np.inf))
    scales = [float(scale) for _, _, scale in rows if scale]
    batches = np.array(sorted(best))
    return BatchCell(
        name=f"{budget:.3g} FLOPs".replace("e+", "e"),
        batch=batches,
        loss=np.array([best[batch] for batch in batches.tolist()]),
        noise_scale=float(np.exp(np.mean(np.log(scales)))),
    )
