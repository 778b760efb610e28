"""Training curves of sizes that all have the same tokens and schedule, of the study `one_schedule`.

Legend: N parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scripts.evidence.studies import STUDIES
from sweep.records import Point

FloatArray = npt.NDArray[np.float64]

WARMUP = 0.1  # share of a run during which the loss says little about a model


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """Training curve of one size."""

    n_params: float
    n_params_non_embedding: float
    flops_per_token: float
    n_tokens: FloatArray  # (k,) in the middle of the steps of a record
    loss: FloatArray  # (k,) of training, nats per token

    @property
    def _kept(self) -> npt.NDArray[np.bool_]:
        return self.n_tokens >= WARMUP * self.n_tokens[-1]

    def smooth(self, n_tokens: npt.ArrayLike) -> FloatArray:
        """Return the loss by a cubic of ln L in ln D through the records after the warmup.

        A record is the mean of a dozen steps, with a noise of some percent that all sizes share.
        """
        center = np.log(self.n_tokens[-1])
        cubic = np.polyfit(np.log(self.n_tokens[self._kept]) - center, np.log(self.loss[self._kept]), 3)
        return np.asarray(np.exp(np.polyval(cubic, np.log(n_tokens) - center)))

    def loss_at(self, n_tokens: float) -> float | None:
        """Return the smoothed loss after some tokens; None within the warmup or beyond the end."""
        if not WARMUP * self.n_tokens[-1] <= n_tokens <= self.n_tokens[-1]:
            return None
        return float(self.smooth(n_tokens))

    def tokens_to(self, loss: float) -> float | None:
        """Return the tokens after which the smoothed loss is below a value; None if that is not seen."""
        grid = np.geomspace(WARMUP * self.n_tokens[-1], self.n_tokens[-1], 400)
        falling = np.minimum.accumulate(self.smooth(grid))
        if not falling[-1] <= loss <= falling[0]:
            return None
        return float(np.exp(np.interp(-loss, -falling, np.log(grid))))


def read_curves() -> list[Curve]:
    """Return the training curves, smallest size first."""
    with (STUDIES["one_schedule"].directory / "curves.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    names = dict.fromkeys(line["name"] for line in lines)
    return [_curve([line for line in lines if line["name"] == name]) for name in names]


def _curve(lines: Sequence[dict[str, str]]) -> Curve:
    tokens = np.array([float(line["n_tokens"]) for line in lines])
    before = np.concatenate([[0.0], tokens[:-1]])
    last = lines[-1]
    return Curve(
        n_params=float(last["n_params"]),
        n_params_non_embedding=float(last["n_params_non_embedding"]),
        flops_per_token=float(last["flops"]) / float(last["n_tokens"]),
        n_tokens=(tokens + before) / 2,
        loss=np.array([float(line["train_loss"]) for line in lines]),
    )


def read_points(budgets: Sequence[float], until: float = 1.0) -> list[Point]:
    """Return the loss of every size where its curve reaches each budget, as if the run had ended there.

    Losses beyond the share `until` of the schedule are left out.
    """
    curves = read_curves()
    return [
        Point(
            n_params=curve.n_params,
            n_params_non_embedding=curve.n_params_non_embedding,
            n_tokens=budget / curve.flops_per_token,
            flops=budget,
            flops_budget=budget,
            loss=loss,
        )
        for budget in budgets
        for curve in curves
        if budget / curve.flops_per_token <= until * curve.n_tokens[-1]
        and (loss := curve.loss_at(budget / curve.flops_per_token)) is not None
    ]
