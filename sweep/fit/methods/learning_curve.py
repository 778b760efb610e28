"""Kaplan's law of training curves L(N, S_min) and the critical batch size, at a constant learning rate.

Legend: N parameters, S optimizer steps, B tokens per step, L loss.

    L(N, S_min) = (Nc/N)^alpha_N + (Sc/S_min)^alpha_S        (Kaplan et al. 2020, equation 5.6)
    S_min = S / (1 + B_crit(L)/B),  B_crit(L) = B* / L^(1/alpha_B)   (5.4 and 5.3)

theta = (alpha_N ln Nc, alpha_N, alpha_S ln Sc, alpha_S, ln B*, 1/alpha_B), all but the exponents centred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.base import Interval
from sweep.fit.numerics.minimise import SQUARES, FunctionModel, minimise
from sweep.fit.refusals import Refusal
from sweep.fit.table.curves import LossCurve
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

CONSTANT = ("constant",)  # schedules under which a shorter run has the same curve
WARMUP_FRAC = 0.1  # of a run's steps, not fitted: the learning rate is not yet constant
NO_INTERVAL = "none: the records of a curve share its noise, and the curves are too few to resample"
MIN_RECORDS, MIN_SIZES, MIN_BATCHES = 20, 2, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningCurve:
    """The constants of L(N, S_min), without intervals."""

    Nc: float
    alpha_N: float  # noqa: N815 the name of the paper
    Sc: float  # optimizer steps
    alpha_S: float  # noqa: N815
    B_star: float  # tokens, at L = 1
    alpha_B: float  # noqa: N815
    n_records: int
    n_runs: int
    objective: float
    ci: Mapping[str, Interval] | None = None
    interval_note: str = NO_INTERVAL


def fit_learning_curve(observations: Observations, config: FitConfig) -> LearningCurve | Refusal:
    """Fit the law to records after warmup of runs at a constant learning rate, or return a refusal."""
    curves = [curve for curve in observations.curves if curve.schedule in CONSTANT and curve.batch_tokens]
    refusal = _refusal(observations, curves)
    if refusal is not None:
        return refusal
    n_params, steps, batch, loss = _records(curves)
    centers = [float(np.log(values).mean()) for values in (n_params, steps, batch)]
    u, s, w = (np.log(v) - c for v, c in zip((n_params, steps, batch), centers, strict=True))
    log_loss = np.log(loss)
    center_l = float(log_loss.mean())

    def model(theta: FloatArray) -> FloatArray:
        a, alpha_n, c, alpha_s, log_b, inverse = theta.T[:, :, None]
        log_s_min = s - np.logaddexp(0.0, log_b - inverse * (log_loss - center_l) - w)
        return np.asarray(np.logaddexp(a - alpha_n * u, c - alpha_s * log_s_min), dtype=np.float64)

    function = FunctionModel(model)
    squares = minimise(function, _starts(center_l), log_loss, SQUARES, max_iterations=400)
    solution = minimise(function, squares.theta, log_loss, config.huber_delta, max_iterations=400)
    best = int(np.argmin(solution.objective))
    if not (solution.theta[best, [1, 3, 5]] > 0).all():
        return Refusal(
            kind="exponent_at_bound",
            reason="the training curves do not follow L(N, S_min), since a fitted exponent is negative: add "
            "longer runs",
        )
    a, alpha_n, c, alpha_s, log_b, inverse = solution.theta[best]
    return LearningCurve(
        Nc=float(np.exp(a / alpha_n + centers[0])),
        alpha_N=float(alpha_n),
        Sc=float(np.exp(c / alpha_s + centers[1])),
        alpha_S=float(alpha_s),
        B_star=float(np.exp(log_b + centers[2] + inverse * center_l)),
        alpha_B=float(1 / inverse),
        n_records=len(loss),
        n_runs=len(curves),
        objective=float(solution.objective[best]),
    )


def _refusal(observations: Observations, curves: list[LossCurve]) -> Refusal | None:
    if not observations.curves:
        return Refusal(
            kind="no_curves",
            reason="L(N, S_min) needs training curves, which a table does not have: fit a sweep's directory",
        )
    if not curves:
        schedules = ", ".join(sorted({str(curve.schedule) for curve in observations.curves}))
        return Refusal(
            kind="no_curves",
            reason=f"L(N, S_min) needs training curves at a constant learning rate, and the schedules of "
            f"these runs are {schedules}: add runs with schedule=constant",
        )
    n_batches = len({curve.batch_tokens for curve in curves})
    n_sizes = len({curve.n_params for curve in curves})
    if n_batches < MIN_BATCHES or n_sizes < MIN_SIZES:
        return Refusal(
            kind="one_batch_size",
            reason=f"L(N, S_min) with a critical batch size needs {MIN_BATCHES} batch sizes and {MIN_SIZES} "
            f"model sizes, and the curves have {n_batches} and {n_sizes}: add runs at other batch sizes",
        )
    n_records = len(_records(curves)[0])
    if n_records < MIN_RECORDS:
        return Refusal(
            kind="too_few_points",
            reason=f"the curves have {n_records} records after warmup and L(N, S_min) needs {MIN_RECORDS}: "
            f"add longer runs",
        )
    return None


def _records(curves: list[LossCurve]) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return N, S, B and L of all records after warmup."""
    parts = []
    for curve in curves:
        late = curve.steps > WARMUP_FRAC * curve.steps[-1]
        n_params = curve.n_params_non_embedding or curve.n_params
        ones = np.ones(int(late.sum()))
        parts.append(
            np.stack(
                [n_params * ones, curve.steps[late], (curve.batch_tokens or 1.0) * ones, curve.loss[late]]
            )
        )
    n_params, steps, batch, loss = np.concatenate(parts, axis=1)
    return n_params, steps, batch, loss


def _starts(center_l: float) -> FloatArray:
    """Return starts with both terms at half of the mean loss, over plausible exponents and batch sizes."""
    half = center_l - np.log(2.0)
    return np.array(
        [
            [half, alpha_n, half, alpha_s, log_b, inverse]
            for alpha_n in (0.08, 0.3)
            for alpha_s in (0.3, 0.8)
            for log_b in (-3.0, -1.0, 1.0, 3.0)
            for inverse in (1.0, 5.0)
        ]
    )
