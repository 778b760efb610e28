"""Method `kaplan`: the laws of Kaplan et al. 2020, without an irreducible loss, non-embedding N by default.

Legend: N parameters in the law's own counting, D tokens, C training FLOPs, L loss.

    L(N, D) = [(Nc/N)^(alpha_N/alpha_D) + Dc/D]^alpha_D     (their equation 1.5)
    L(N) = (Nc/N)^alpha_N,  L(D) = (Dc/D)^alpha_D           (1.1, 1.2: its limits)
    L(C) = (Cc/C)^alpha_C                                   (1.3: through the efficient points)

theta = (ln A, ln Dc, x, alpha_D) with x = alpha_N/alpha_D and A = Nc^x: ln L = alpha_D ln(A/N^x + Dc/D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.config.fitting import Counting
from sweep.fit.draws import draws_from_json, draws_to_json
from sweep.fit.hull import efficient_points
from sweep.fit.laws.base import Law, Optimum, named_intervals
from sweep.fit.methods.kaplan_model import KaplanModel, estimate_kaplan
from sweep.fit.methods.learning_curve import fit_learning_curve
from sweep.fit.numerics.estimation import estimate_surface
from sweep.fit.numerics.identifiability import check_design
from sweep.fit.numerics.lack_of_fit import doubted, judged_noise, least_squares_noise, misfit_warning
from sweep.fit.numerics.minimise import SQUARES, CentredData, FunctionModel
from sweep.fit.numerics.resampling import degenerate_warning, resample_model, trunk_warning
from sweep.fit.refusals import RefusedError
from sweep.fit.surface import optimum_exponents, surface_optimum
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import Observations, RunNoise

FloatArray = npt.NDArray[np.float64]

NO_LOG_FLOOR = -800.0  # exp of it is zero
COLUMNS = ("ln A", "ln Dc", "x", "alpha_D")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KaplanLaw(Law):
    """L(N, D) and its optima. `optimum` answers in total parameters, whatever N the law itself is in."""

    theta: FloatArray  # (4,)
    draws: FloatArray  # (n_draws, 4)
    counting: Counting
    flops_per_token: FlopsPerToken  # of the law's own N
    total_params: FlopsPerToken | None  # total N of the law's own N; None where it is total
    flops_range: tuple[float, float]
    compute_law: tuple[float, float]  # ln Cc and alpha_C
    learning_curve: Mapping[str, Any]  # L(N, S_min) as it stands in fit.json, or why it is refused
    objective: float
    huber_delta: float
    confidence: float
    noise: RunNoise | None
    n_degenerate: int
    scheme: str
    warnings: tuple[str, ...]

    @property
    def n_draws(self) -> int:
        """Usable bootstrap resamples."""
        return len(self.draws)

    def loss(self, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike) -> FloatArray:
        """L(N, D) for N in the law's own counting; arguments broadcast."""
        log_a, log_dc, x, alpha_d = self.theta
        log_sum = np.logaddexp(log_a - x * np.log(n_params), log_dc - np.log(n_tokens))
        return np.asarray(np.exp(alpha_d * log_sum), dtype=np.float64)

    def optimum(self, flops: FloatArray) -> Optimum:
        """Least L(N, D) with D f(N) = C: that of A/N^x + 1 Dc/D, a surface with exponents x and 1."""
        return self._optimum(self.theta, flops)

    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """The same for every resample."""
        return self._optimum(self.draws, flops)

    def _optimum(self, theta: FloatArray, flops: FloatArray) -> Optimum:
        found = surface_optimum(_as_surface(theta), flops, self.flops_per_token)
        n_params = found.n_params_opt
        return Optimum(
            n_params_opt=n_params if self.total_params is None else self.total_params(n_params),
            n_tokens_opt=found.n_tokens_opt,
            loss_opt=found.loss_opt ** theta[..., 3:],
        )

    def loss_off_optimum(self, flops: float, factor: float) -> float:
        """Loss at budget `flops` with `factor` times the optimal N of the law's own counting."""
        best = surface_optimum(_as_surface(self.theta), np.array([flops]), self.flops_per_token)
        n_params = factor * float(best.n_params_opt[0])
        return float(self.loss(n_params, flops / float(self.flops_per_token(n_params))))

    def _named(self, theta: FloatArray) -> dict[str, FloatArray]:
        log_a, log_dc, x, alpha_d = np.moveaxis(theta, -1, 0)
        a, b = optimum_exponents(_as_surface(theta), self.flops_per_token, self.flops_range)
        return {
            "Nc": np.exp(log_a / x),
            "Dc": np.exp(log_dc),
            "alpha_N": x * alpha_d,
            "alpha_D": alpha_d,
            "a": a,
            "b": b,
        }

    def to_json(self) -> dict[str, Any]:
        """Its entry in fit.json; `from_json` reads it back to the last bit."""
        return {
            **{name: float(value) for name, value in self._named(self.theta).items()},
            "Cc": float(np.exp(self.compute_law[0])),
            "alpha_C": self.compute_law[1],
            "counting": self.counting,
            "learning_curve": dict(self.learning_curve),
            "objective": self.objective,
            "huber_delta": self.huber_delta,
            "ci": {
                name: list(pair)
                for name, pair in named_intervals(self._named(self.draws), self.confidence).items()
            },
            "confidence": self.confidence,
            "noise": None if self.noise is None else self.noise.to_json(),
            "theta": self.theta.tolist(),
            "compute_law": list(self.compute_law),
            "flops_per_token": self.flops_per_token.to_json(),
            "total_params": None if self.total_params is None else self.total_params.to_json(),
            "flops_range": list(self.flops_range),
            "bootstrap": {
                "scheme": self.scheme,
                "n_draws": self.n_draws,
                "n_degenerate": self.n_degenerate,
                "draws": draws_to_json(self.draws, COLUMNS),
            },
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> KaplanLaw:
        """The inverse of `to_json`."""
        total = document["total_params"]
        low, high = document["flops_range"]
        log_cc, alpha_c = document["compute_law"]
        return cls(
            theta=np.array(document["theta"]),
            draws=draws_from_json(document["bootstrap"]["draws"]),
            counting=document["counting"],
            flops_per_token=FlopsPerToken.from_json(document["flops_per_token"]),
            total_params=None if total is None else FlopsPerToken.from_json(total),
            flops_range=(low, high),
            compute_law=(log_cc, alpha_c),
            learning_curve=document["learning_curve"],
            objective=document["objective"],
            huber_delta=document["huber_delta"],
            confidence=document["confidence"],
            noise=RunNoise.from_json(document["noise"]),
            n_degenerate=document["bootstrap"]["n_degenerate"],
            scheme=document["bootstrap"]["scheme"],
            warnings=tuple(document["warnings"]),
        )


def fit_kaplan(observations: Observations, config: FitConfig) -> KaplanLaw:
    """Fit L(N, D) by Huber's loss of ln L, its optima, L(C), and L(N, S_min) where curves allow it.

    Source: Kaplan et al. 2020, sections 1.2 and 4.1; L(N, S_min) sections 5.1 and 5.2.

    Raises:
        RefusedError: too few points, sizes or budgets; N and D collinear; a vanished term; degenerate draws.
    """
    check_design(observations)
    counting, n_params, warnings = _count(observations, config)
    model = KaplanModel.of(n_params, observations.n_tokens)
    log_loss = np.log(observations.loss)
    theta, objective = estimate_kaplan(model, log_loss, config.huber_delta)
    resampled = resample_model(
        FunctionModel(model, model.jacobian),
        theta,
        log_loss,
        observations.cluster,
        config,
        KaplanModel.usable,
    )
    is_total = counting == "total"
    residuals = RunNoise(sd=resampled.residual_sd, n_dof=max(1, len(log_loss) - 4), source="residuals")
    noise, doubts = judged_noise(residuals, observations.replicate_noise)
    if not doubts:
        doubts = _against_surface(observations, residuals)
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
            *trunk_warning(observations.cluster, config.n_bootstrap),
            *degenerate_warning(resampled.n_degenerate, config.n_bootstrap),
        ),
    )


def _against_surface(observations: Observations, residuals: RunNoise) -> tuple[str, ...]:
    """A sentence where a floor under the loss leaves far less; none where that surface is not found."""
    data = CentredData.of(observations.n_params, observations.n_tokens, observations.loss)
    try:
        theta, _, _ = estimate_surface(data, SQUARES)
    except RefusedError:
        return ()
    return misfit_warning(residuals, least_squares_noise(data, theta))


def _count(observations: Observations, config: FitConfig) -> tuple[Counting, FloatArray, tuple[str, ...]]:
    """The counting the law is in, N in it, and a warning where the one asked for is not there."""
    non_embedding = observations.n_params_non_embedding
    if config.kaplan_n_params == "total":
        return "total", observations.n_params, ()
    if non_embedding is None:
        told = "the table has no n_params_non_embedding: the law is in its n_params, whatever they count"
        return "total", observations.n_params, (told,)
    return "non_embedding", non_embedding, ()


def _compute_law(observations: Observations) -> tuple[float, float]:
    """ln Cc and alpha_C of L = (Cc/C)^alpha_C, by least squares through the efficient points."""
    log_c, log_loss = np.log(observations.flops), np.log(observations.loss)
    hull = efficient_points(log_c, log_loss)
    if len(hull) < 2:
        return 0.0, 0.0
    slope, level = np.polyfit(log_c[hull], log_loss[hull], 1)
    return float(-level / slope), float(-slope)


def _as_surface(theta: FloatArray) -> FloatArray:
    """theta (..., 4) as (ln A, ln Dc, no floor, x, 1) of the surface whose power alpha_D the law is."""
    log_a, log_dc, x, _ = np.moveaxis(theta, -1, 0)
    return np.stack([log_a, log_dc, np.full_like(x, NO_LOG_FLOOR), x, np.ones_like(x)], axis=-1)
