"""Bootstrap draws of the exponent a and of D/N at the largest budget, by every method.

Legend: N parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Law
from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]

MAX_DRAWS = 1000  # drawn


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cloud:
    """Bootstrap draws of one method's exponent and of its D/N at the largest budget."""

    method: str
    flops: float  # the largest fitted budget
    exponent: FloatArray  # (n,) n <= MAX_DRAWS
    tokens_per_param: FloatArray  # (n,)
    exponent_estimate: float
    tokens_per_param_estimate: float


def clouds(results: SweepResults) -> tuple[Cloud, ...]:
    """Return the draws of every method that has any; empty unless the points span several budgets."""
    flops_range = results.fit.flops_range
    if flops_range is None or flops_range[0] == flops_range[1]:
        return ()
    return tuple(_cloud(name, law, flops_range) for name, law in results.fit.laws.items() if law.n_draws)


def _cloud(name: str, law: Law, flops_range: tuple[float, float]) -> Cloud:
    low, high = flops_range
    ends, span = np.array([low, high]), math.log(high / low)
    draws, estimate = law.optimum_draws(ends), law.optimum(ends)
    log_n_draws, log_n = np.log(draws.n_params_opt), np.log(estimate.n_params_opt)
    return Cloud(
        method=name,
        flops=high,
        exponent=((log_n_draws[:, 1] - log_n_draws[:, 0]) / span)[:MAX_DRAWS],
        tokens_per_param=draws.tokens_per_param_opt[:MAX_DRAWS, 1],
        exponent_estimate=float((log_n[1] - log_n[0]) / span),
        tokens_per_param_estimate=float(estimate.tokens_per_param_opt[1]),
    )
