"""Method `kaplan` (Kaplan et al. 2020): laws without irreducible loss, in non-embedding N by default.

Legend: N parameters in the law's own counting convention, D tokens, C training FLOPs, L loss.

    L(N, D) = [(Nc/N)^(alpha_N/alpha_D) + Dc/D]^alpha_D     (their equation 1.5)
    L(N) = (Nc/N)^alpha_N,  L(D) = (Dc/D)^alpha_D           (1.1, 1.2: its limits)
    L(C) = (Cc/C)^alpha_C                                   (1.3: through the efficient points)

theta = (ln A, ln Dc, x, alpha_D) with x = alpha_N/alpha_D and A = Nc^x: ln L = alpha_D ln(A/N^x + Dc/D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.config.fitting import Counting
from sweep.fit.laws.base import Optimum
from sweep.fit.laws.drawn_law import DrawnLaw
from sweep.fit.laws.surface import optimum_exponents, surface_optimum
from sweep.fit.methods.envelope_draws import efficient_points
from sweep.fit.methods.kaplan_model import KaplanModel, estimate_kaplan
from sweep.fit.methods.learning_curve import LearningCurve, fit_learning_curve
from sweep.fit.numerics.estimation import centred, estimate_surface
from sweep.fit.numerics.identifiability import check_design
from sweep.fit.numerics.lack_of_fit import doubted, judged_noise, least_squares_noise, misfit_warning
from sweep.fit.numerics.resampling import resample_model, resampling_warnings
from sweep.fit.refusals import Refusal, RefusedError
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import Observations, RunNoise

FloatArray = npt.NDArray[np.float64]

N_CONSTANTS = 4  # Nc, Dc, alpha_N and alpha_D
MAX_LOG = 700.0  # of Nc and Cc, whose exponentials overflow where an exponent is near zero
NO_LOG_FLOOR = -800.0  # ln E of no irreducible loss: its exponential is zero


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class KaplanLaw(DrawnLaw):
    """L(N, D) and its optima, which are in total parameters for either counting convention.

    `flops_per_token` is a function of N in the law's own convention.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("ln A", "ln Dc", "x", "alpha_D")

    counting: Counting
    total_params: FlopsPerToken | None  # total N as a function of the law's N; None if it is total
    flops_range: tuple[float, float]
    compute_law: tuple[float, float]  # ln Cc and alpha_C
    learning_curve: LearningCurve | Refusal  # L(N, S_min)
    objective: float
    huber_delta: float

    def loss(self, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike) -> FloatArray:
        """Return L(N, D) for N in the law's own convention; arguments broadcast."""
        log_a, log_dc, x, alpha_d = self.theta
        log_sum = np.logaddexp(log_a - x * np.log(n_params), log_dc - np.log(n_tokens))
        return np.asarray(np.exp(alpha_d * log_sum), dtype=np.float64)

    def predicted_losses(self, observations: Observations) -> FloatArray | None:
        """Return L at each point, shape (n,); None if a point has no N in the law's convention."""
        n_params = observations.n_params if self.counting == "total" else observations.n_params_non_embedding
        return None if n_params is None else self.loss(n_params, observations.n_tokens)

    def _optimum(self, theta: FloatArray, flops: FloatArray) -> Optimum:
        """Minimise A/N^x + Dc/D with D f(N) = C, a surface with exponents x and 1."""
        found = surface_optimum(_as_surface(theta), flops, self.flops_per_token)
        n_params = found.n_params_opt
        return Optimum(
            n_params_opt=n_params if self.total_params is None else self.total_params(n_params),
            n_tokens_opt=found.n_tokens_opt,
            loss_opt=found.loss_opt ** theta[..., 3:],
        )

    def loss_off_optimum(self, flops: float, factor: float) -> float:
        """Return the loss at budget `flops` with `factor` times the optimal N of the law's own convention."""
        best = surface_optimum(_as_surface(self.theta), np.array([flops]), self.flops_per_token)
        n_params = factor * float(best.n_params_opt[0])
        return float(self.loss(n_params, flops / float(self.flops_per_token(n_params))))

    def named(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return Nc, Dc, alpha_N, alpha_D, and the exponents a and b, for theta (..., 4)."""
        log_a, log_dc, x, alpha_d = np.moveaxis(theta, -1, 0)
        a, b = optimum_exponents(_as_surface(theta), self.flops_per_token, self.flops_range)
        return {
            "Nc": np.exp(np.minimum(log_a / x, MAX_LOG)),
            "Dc": np.exp(log_dc),
            "alpha_N": x * alpha_d,
            "alpha_D": alpha_d,
            "a": a,
            "b": b,
        }

    def to_json(self) -> dict[str, Any]:
        """Return its entry in fit.json, with Cc and alpha_C of L(C) under their own names."""
        log_cc, alpha_c = self.compute_law
        return {**DrawnLaw.to_json(self), "Cc": float(np.exp(min(log_cc, MAX_LOG))), "alpha_C": alpha_c}


def fit_kaplan(observations: Observations, config: FitConfig, *, with_checks: bool = True) -> KaplanLaw:
    """Fit L(N, D) by Huber's loss of ln L, then L(C), and L(N, S_min) if there are training curves.

    Without `with_checks` it is not compared with a surface of irreducible loss.

    Source: Kaplan et al. 2020, sections 1.2 and 4.1; L(N, S_min) sections 5.1 and 5.2.

    Raises:
        RefusedError: too few points, sizes or budgets; N and D collinear; a term that vanishes; most
            resamples degenerate.
    """
    check_design(observations, N_CONSTANTS)
    counting, n_params, warnings = _count(observations, config)
    model = KaplanModel.of(n_params, observations.n_tokens)
    log_loss = np.log(observations.loss)
    theta, objective = estimate_kaplan(model, log_loss, config.huber_delta, screened=not with_checks)
    resampled = resample_model(model, theta, log_loss, observations.cluster, config, KaplanModel.usable)
    is_total = counting == "total"
    residuals = RunNoise(sd=resampled.residual_sd, n_dof=max(1, len(log_loss) - 4), source="residuals")
    noise, doubts = judged_noise(residuals, observations.replicate_noise)
    if not doubts and with_checks:
        doubts = _against_surface(observations, config, residuals)
        noise = doubted(residuals) if doubts else noise
    return KaplanLaw(
        theta=model.from_centred(theta),
        draws=model.from_centred(resampled.draws),
        counting=counting,
        flops_per_token=observations.flops_per_token
        if is_total
        else FlopsPerToken.through(n_params, observations.flops / observations.n_tokens),
        total_params=None if is_total else FlopsPerToken.through(n_params, observations.n_params),
        flops_range=observations.flops_range,
        compute_law=_compute_law(observations),
        learning_curve=fit_learning_curve(observations, config),
        objective=objective,
        huber_delta=config.huber_delta,
        confidence=config.confidence,
        noise=noise,
        n_degenerate=resampled.n_degenerate,
        scheme=resampled.scheme,
        warnings=(
            *doubts,
            *warnings,
            *resampling_warnings(observations.cluster, resampled.n_degenerate, config.n_bootstrap),
        ),
    )


def _against_surface(observations: Observations, config: FitConfig, residuals: RunNoise) -> tuple[str, ...]:
    """Return a warning if a surface with irreducible loss fits far better; none if it cannot be fitted."""
    data = centred(observations)
    try:
        theta, _, _ = estimate_surface(data, config.huber_delta)
    except RefusedError:
        return ()
    return misfit_warning(residuals, least_squares_noise(data, theta))


def _count(observations: Observations, config: FitConfig) -> tuple[Counting, FloatArray, tuple[str, ...]]:
    """Return the counting convention, N in it, and a warning if the requested one is not available."""
    non_embedding = observations.n_params_non_embedding
    if config.kaplan.n_params == "total":
        return "total", observations.n_params, ()
    if non_embedding is None:
        warning = "no n_params_non_embedding in the table: the law is in n_params, in the table's convention"
        return "total", observations.n_params, (warning,)
    return "non_embedding", non_embedding, ()


def _compute_law(observations: Observations) -> tuple[float, float]:
    """Fit L = (Cc/C)^alpha_C to the efficient points by least squares; returns ln Cc and alpha_C."""
    log_c, log_loss = np.log(observations.flops), np.log(observations.loss)
    hull = efficient_points(log_c, log_loss)
    if len(hull) < 2:
        return 0.0, 0.0
    slope, level = np.polyfit(log_c[hull], log_loss[hull], 1)
    return float(-level / slope), float(-slope)


def _as_surface(theta: FloatArray) -> FloatArray:
    """Return theta (..., 5) of the surface A/N^x + Dc/D, the law to the power 1/alpha_D."""
    log_a, log_dc, x, _ = np.moveaxis(theta, -1, 0)
    return np.stack([log_a, log_dc, np.full_like(x, NO_LOG_FLOOR), x, np.ones_like(x)], axis=-1)
