"""Form error of an extrapolation: its size inferred from rolling backtests and a prior from other sweeps.

A law extrapolated by r e-folds of compute misses by noise and by its form. The form's miss of a logarithm is
taken as normal with standard deviation s r. s differs between sweeps: its prior is log-normal, and each
backtest error e at reach r, with noise variance v, contributes a likelihood N(e; 0, v + s^2 r^2). The
posterior of s is kept on a grid, and a predictive interval integrates over it, so that few backtests leave
heavy tails and exact ones earn a narrow interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

GRID = np.exp(np.linspace(math.log(1e-5), math.log(2.0), 160))  # of s, per e-fold of compute
N_BISECTIONS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class FormPrior:
    """Log-normal prior of s: its median per e-fold of compute and its standard deviation in ln s."""

    median: float
    log_sd: float
    exact: float = 0.1  # probability that the form has no error, as a law that generated the data


@dataclass(frozen=True, kw_only=True, slots=True)
class BacktestError:
    """Error of one prediction of a quantity that was measured."""

    cut: int  # predictions of one cut share their fit, and count together as one
    reach: float  # e-folds of compute beyond the largest budget fitted
    error: float  # ln predicted - ln measured
    variance: float  # of the error by noise, of the prediction and of the measurement


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FormError:
    """Posterior of s as weights over GRID."""

    weights: FloatArray

    @classmethod
    def infer(cls, prior: FormPrior, errors: Sequence[BacktestError]) -> FormError:
        """Return the posterior of s given `errors`; the prior where there are none."""
        weight = np.exp(-0.5 * ((np.log(GRID) - math.log(prior.median)) / prior.log_sd) ** 2)
        weight *= (1.0 - prior.exact) / weight.sum()
        weight[0] += prior.exact
        log_weight = np.log(np.maximum(weight, 1e-300))
        counts: dict[int, int] = {}
        for error in errors:
            counts[error.cut] = counts.get(error.cut, 0) + 1
        for error in errors:
            variance = error.variance + (GRID * error.reach) ** 2
            log_weight -= 0.5 * (np.log(variance) + error.error**2 / variance) / counts[error.cut]
        weights = np.exp(log_weight - log_weight.max())
        return cls(weights=weights / weights.sum())

    @property
    def sd(self) -> float:
        """Root mean square of s: the form's standard deviation per e-fold."""
        return math.sqrt(float(self.weights @ GRID**2))

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Return `n` draws of s, shape (n,)."""
        return np.asarray(rng.choice(GRID, size=n, p=self.weights), dtype=np.float64)

    def half_width(self, variance: float, reach: float, confidence: float) -> float:
        """Return half the central interval of a logarithm, `reach` e-folds beyond the data."""
        sd = np.sqrt(variance + (GRID * max(reach, 0.0)) ** 2)
        low, high = 0.0, 50.0 * float(sd.max())
        for _ in range(N_BISECTIONS):
            middle = 0.5 * (low + high)
            held = float(self.weights @ _erf(middle / (math.sqrt(2.0) * np.maximum(sd, 1e-300))))
            low, high = (middle, high) if held < confidence else (low, middle)
        return high


def _erf(x: FloatArray) -> FloatArray:
    """Return the error function of each value; scipy is slow to import, and there are few values."""
    return np.array([math.erf(value) for value in x.tolist()])
