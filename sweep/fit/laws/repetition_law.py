"""What a fitted law of repeated data can say: its loss, its optima for given unique tokens, its JSON.

Legend: N parameters, D tokens, U unique tokens, C training FLOPs, L loss; theta as in `repetition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.fit.draws import draws_from_json, draws_to_json
from sweep.fit.laws.base import Law, Optimum, Quantity, named_intervals
from sweep.fit.repetition import repeated_log_loss
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import RunNoise

FloatArray = npt.NDArray[np.float64]

COLUMNS = ("ln A", "ln B", "ln E", "alpha", "beta", "ln R_D*", "ln R_N*")
FITTED = ("A", "B", "E", "alpha", "beta", "R_D_star", "R_N_star", "a", "b")  # but for a kept surface
OPTIMUM_STEPS = 60  # golden sections in ln N
SEARCH_DECADES = 6.0  # of N either way of the unrepeated optimum


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DataConstrainedLaw(Law):
    """L(N, D, U); optima for the unique tokens of its own table."""

    theta: FloatArray  # (7,)
    draws: FloatArray  # (n_draws, 7)
    base: str | None  # the published surface that was kept
    n_tokens_unique: float  # U at which optima are taken: the largest of the table
    flops_per_token: FlopsPerToken
    profile: FloatArray  # (k, 3): R_D*, the best R_N* with it, the objective
    identified: bool  # whether the profile bounds R_D* on both sides
    objective: float
    huber_delta: float
    r_squared: float  # of L
    n_repeated: int
    confidence: float
    noise: RunNoise | None
    n_degenerate: int
    scheme: str
    warnings: tuple[str, ...]

    @property
    def n_draws(self) -> int:
        """Usable bootstrap resamples."""
        return len(self.draws)

    @property
    def assumes_exponents(self) -> bool:
        """They are the published surface's where one was kept."""
        return self.base is not None

    def loss(
        self, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike, n_tokens_unique: npt.ArrayLike
    ) -> FloatArray:
        """L(N, D, U); arguments broadcast."""
        logs = np.broadcast_arrays(*(np.log(np.atleast_1d(x)) for x in (n_params, n_tokens, n_tokens_unique)))
        return np.exp(repeated_log_loss(self.theta, *logs))

    def optimum(self, flops: FloatArray) -> Optimum:
        """Least loss with D f(N) = C and U unique tokens, however often they repeat."""
        return self._optimum(self.theta, flops)

    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """The same for every resample."""
        return self._optimum(self.draws, flops)

    def _optimum(self, theta: FloatArray, flops: FloatArray) -> Optimum:
        log_c, log_u = np.log(flops), np.log(self.n_tokens_unique)
        shape = (*theta.shape[:-1], len(flops))
        middle = np.broadcast_to(0.5 * log_c, shape)
        span = SEARCH_DECADES * np.log(10.0)
        low, high = middle - span, middle + span
        golden = (np.sqrt(5.0) - 1) / 2

        def loss(log_n: FloatArray) -> FloatArray:
            log_d = log_c - self.flops_per_token.log_flops(np.exp(log_n))
            return repeated_log_loss(theta, log_n, log_d, log_u)

        left, right = high - golden * (high - low), low + golden * (high - low)
        for _ in range(OPTIMUM_STEPS):
            lower = loss(left) < loss(right)
            low, high = np.where(lower, low, left), np.where(lower, right, high)
            left, right = high - golden * (high - low), low + golden * (high - low)
        log_n = 0.5 * (low + high)
        n_params = np.exp(log_n)
        return Optimum(
            n_params_opt=n_params,
            n_tokens_opt=np.exp(log_c - self.flops_per_token.log_flops(n_params)),
            loss_opt=np.exp(loss(log_n)),
        )

    def band(self, quantity: Quantity, flops: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """As every law's; None where a published surface was kept, since nothing here measures its doubt."""
        return None if self.base is not None else Law.band(self, quantity, flops)

    def loss_off_optimum(self, flops: float, factor: float) -> float:
        """Loss at budget `flops` with `factor` times the optimal N and the table's unique tokens."""
        n_params = factor * self.n_params_opt(flops)
        n_tokens = flops / float(self.flops_per_token(n_params))
        return float(self.loss(n_params, n_tokens, min(n_tokens, self.n_tokens_unique))[0])

    def to_json(self) -> dict[str, Any]:
        """Its entry in fit.json; `from_json` reads it back to the last bit."""
        fitted = FITTED if self.base is None else ("R_D_star", "R_N_star")
        drawn = {name: value for name, value in _named(self.draws).items() if name in fitted}
        return {
            **{name: float(value) for name, value in _named(self.theta).items()},
            "base": self.base,
            "n_tokens_unique": self.n_tokens_unique,
            "identified": self.identified,
            "profile": {"columns": ["R_D*", "R_N*", "objective"], "rows": self.profile.tolist()},
            "objective": self.objective,
            "huber_delta": self.huber_delta,
            "r_squared": self.r_squared,
            "n_repeated": self.n_repeated,
            "ci": {name: list(pair) for name, pair in named_intervals(drawn, self.confidence).items()},
            "confidence": self.confidence,
            "noise": None if self.noise is None else self.noise.to_json(),
            "theta": self.theta.tolist(),
            "flops_per_token": self.flops_per_token.to_json(),
            "bootstrap": {
                "scheme": self.scheme,
                "n_draws": self.n_draws,
                "n_degenerate": self.n_degenerate,
                "draws": draws_to_json(self.draws, COLUMNS),
            },
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DataConstrainedLaw:
        """The inverse of `to_json`."""
        return cls(
            theta=np.array(document["theta"]),
            draws=draws_from_json(document["bootstrap"]["draws"]),
            base=document["base"],
            n_tokens_unique=document["n_tokens_unique"],
            flops_per_token=FlopsPerToken.from_json(document["flops_per_token"]),
            profile=np.array(document["profile"]["rows"]),
            identified=document["identified"],
            objective=document["objective"],
            huber_delta=document["huber_delta"],
            r_squared=document["r_squared"],
            n_repeated=document["n_repeated"],
            confidence=document["confidence"],
            noise=RunNoise.from_json(document["noise"]),
            n_degenerate=document["bootstrap"]["n_degenerate"],
            scheme=document["bootstrap"]["scheme"],
            warnings=tuple(document["warnings"]),
        )


def _named(theta: FloatArray) -> dict[str, FloatArray]:
    """The constants, and a = beta/(alpha+beta) and b = 1 - a of the law without repetition."""
    alpha, beta = theta[..., 3], theta[..., 4]
    scales = np.exp(np.minimum(theta, 600.0))
    a = beta / (alpha + beta)
    return {
        "A": scales[..., 0],
        "B": scales[..., 1],
        "E": scales[..., 2],
        "alpha": alpha,
        "beta": beta,
        "R_D_star": scales[..., 5],
        "R_N_star": scales[..., 6],
        "a": a,
        "b": 1.0 - a,
    }
