"""Validations: registered predictions of the loss and of N_opt, with what was measured at their budgets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """One quantity at every validated budget, ascending."""

    title: str
    confidence: float  # of the intervals
    flops: FloatArray  # (n,)
    predicted: FloatArray  # (n,)
    predicted_interval: FloatArray  # (n, 2)
    measured: FloatArray  # (n,) nan where it was not bracketed
    measured_interval: FloatArray  # (n, 2) nan where unknown


def comparisons(results: SweepResults) -> tuple[Comparison, ...]:
    """Return predicted and measured loss and N_opt; empty without a finished validation."""
    validations = sorted(results.validations, key=lambda one: one.registration.flops)
    if not validations:
        return ()
    predictions = [one.registration for one in validations]
    flops = np.array([one.flops for one in predictions])
    unknown = (math.nan, math.nan)
    level = predictions[-1].confidence
    return (
        Comparison(
            title="loss of the best size",
            confidence=level,
            flops=flops,
            predicted=np.array([one.loss_opt for one in predictions]),
            predicted_interval=np.array([one.loss_interval for one in predictions]),
            measured=np.array([one.loss for one in validations]),
            measured_interval=np.array([unknown for _ in validations]),
        ),
        Comparison(
            title="optimal $N$",
            confidence=level,
            flops=flops,
            predicted=np.array([one.n_params_opt for one in predictions]),
            predicted_interval=np.array([one.n_params_opt_interval for one in predictions]),
            measured=np.array(
                [math.nan if one.n_params_opt is None else one.n_params_opt for one in validations]
            ),
            measured_interval=np.array([one.n_params_opt_interval or unknown for one in validations]),
        ),
    )
