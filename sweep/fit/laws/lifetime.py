"""The run of least lifetime compute: training plus inference, at equal loss.

Legend: N parameters, D training tokens, D_inf tokens served, C FLOPs, L loss, f(N) training FLOPs per token.

    minimise f(N) D + f(N)/3 D_inf   with   L(N, D) = L*

A served token costs a forward pass, a third of a training token; with f = 6 N the cost is 6 N D + 2 N D_inf.
Source: Sardana et al. 2024, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.encoding import fields_to_plain
from sweep.fit.table.constraint import FlopsPerToken

FloatArray = npt.NDArray[np.float64]

SPAN = 16.0  # of ln N searched below the training optimum; inference only makes the optimum smaller
N_GRID, N_ZOOMS = 201, 6
SERVED_SHARE = 1 / 3  # forward pass, of forward and backward


@dataclass(frozen=True, kw_only=True, slots=True)
class LifetimeOptimum:
    """The run of least lifetime compute, compared with the training-optimal run of the same loss."""

    inference_tokens: float
    loss: float
    n_params: float
    n_tokens: float
    training_flops: float
    lifetime_flops: float
    lifetime_flops_of_training_optimum: float

    def to_json(self) -> dict[str, Any]:
        """Return its entry in `sweep predict --json`."""
        return {
            **fields_to_plain(self),
            "tokens_per_param": self.n_tokens / self.n_params,
            "saved": 1.0 - self.lifetime_flops / self.lifetime_flops_of_training_optimum,
        }


def lifetime_optimum(
    theta: FloatArray, curve: FlopsPerToken, n_params_opt: float, loss: float, inference_tokens: float
) -> LifetimeOptimum:
    """Return the run of least lifetime compute at `loss` on surface theta (5,), with N <= n_params_opt."""
    low, high = np.log(n_params_opt) - SPAN, np.log(n_params_opt) + 1e-9
    for _ in range(N_ZOOMS):
        log_n = np.linspace(low, high, N_GRID)
        cost = _lifetime(theta, curve, log_n, loss, inference_tokens)
        best = int(np.argmin(cost))
        low, high = log_n[max(best - 1, 0)], log_n[min(best + 1, N_GRID - 1)]
    x = np.array([log_n[best]])
    n_tokens = float(_tokens(theta, x, loss)[0])
    n_params = float(np.exp(x[0]))
    per_token = float(curve(n_params))
    there = np.array([np.log(n_params_opt)])
    return LifetimeOptimum(
        inference_tokens=inference_tokens,
        loss=loss,
        n_params=n_params,
        n_tokens=n_tokens,
        training_flops=per_token * n_tokens,
        lifetime_flops=float(cost[best]),
        lifetime_flops_of_training_optimum=float(_lifetime(theta, curve, there, loss, inference_tokens)[0]),
    )


def _tokens(theta: FloatArray, log_n: FloatArray, loss: float) -> FloatArray:
    """Return D with L(N, D) = loss; infinite where no D reaches it."""
    a, b, e, alpha, beta = theta
    left = loss - np.exp(e) - np.exp(a - alpha * log_n)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(left > 0, np.exp((b - np.log(np.maximum(left, 1e-300))) / beta), np.inf)


def _lifetime(
    theta: FloatArray, curve: FlopsPerToken, log_n: FloatArray, loss: float, inference_tokens: float
) -> FloatArray:
    n_tokens = _tokens(theta, log_n, loss)
    return np.asarray(curve(np.exp(log_n)) * (n_tokens + SERVED_SHARE * inference_tokens), dtype=np.float64)
