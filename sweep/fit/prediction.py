"""Predictions of a fit as documents: at a budget, its answer and every method's optimum; or of one run.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.fit.checks.backtest_errors import Backtest
from sweep.fit.laws.base import Estimate, Interval, Quantity
from sweep.fit.laws.encoding import fields_to_plain, to_plain
from sweep.fit.laws.lifetime import LifetimeOptimum
from sweep.fit.refusals import Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodPrediction:
    """One method's optimum at one budget."""

    estimate: Mapping[Quantity, float]  # only the quantities that the law gives
    ci: Mapping[Quantity, Interval]  # confidence intervals of the law; empty without draws
    loss_prediction_interval: Interval | None  # of one new run
    loss_off: Mapping[str, float]  # excess loss at half and at twice the optimal N; empty without L(N, D)
    unproved: tuple[Quantity, ...]  # quantities with intervals of unproved coverage
    notes: tuple[str, ...]  # on the source of a published law
    warnings: tuple[str, ...]  # of the law, and of its interval here
    doubted: bool  # the points show lack of fit
    lifetime: LifetimeOptimum | None  # of a surface, if inference tokens are given

    def to_json(self) -> dict[str, Any]:
        """Return its entry in `sweep predict --json`."""
        run = self.loss_prediction_interval
        return {
            **{str(quantity): value for quantity, value in self.estimate.items()},
            "ci": {quantity: list(pair) for quantity, pair in self.ci.items()},
            "prediction_interval": {} if run is None else {"loss": list(run)},
            "loss_off_2x": dict(self.loss_off),
            **({"notes": list(self.notes)} if self.notes else {}),
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            **({"unproved": list(self.unproved)} if self.unproved and self.ci else {}),
            **({"doubted": True} if self.doubted else {}),
            **({} if self.lifetime is None else {"lifetime": self.lifetime.to_json()}),
        }


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class AnswerPrediction:
    """The answer at one budget, with the reasons for it."""

    estimate: Mapping[Quantity, float]
    ci: Mapping[Quantity, Interval]  # of noise and form; empty without draws
    loss_prediction_interval: Interval | None  # of one new run
    confidence: float  # of all intervals
    level_se: float | None  # in nats, part of the interval of one new run; None: on the held-out windows only
    exponents: tuple[float, float]  # a and b at the largest budget
    weights: Mapping[str, Mapping[str, float]]  # of each method, by quantity: n_params and loss
    form_sd: Mapping[str, float]  # of ln N_opt and ln L per e-fold of C beyond the largest budget
    loss_off: Mapping[str, float]  # excess loss at half and at twice the optimal N; empty without L(N, D)
    warnings: tuple[str, ...]

    @property
    def n_params_opt(self) -> Estimate:
        """Compute-optimal parameters."""
        return Estimate(self.estimate["n_params_opt"], self.ci.get("n_params_opt"))

    @property
    def n_tokens_opt(self) -> Estimate:
        """Compute-optimal tokens."""
        return Estimate(self.estimate["n_tokens_opt"], self.ci.get("n_tokens_opt"))

    @property
    def loss_opt(self) -> Estimate:
        """Loss at the optimum, nats per token, with the interval of one new run where noise is known."""
        interval = self.loss_prediction_interval or self.ci.get("loss_opt")
        return Estimate(self.estimate["loss_opt"], interval)

    def __repr__(self) -> str:
        return (
            f"AnswerPrediction(n_params_opt = {self.n_params_opt}, n_tokens_opt = {self.n_tokens_opt}, "
            f"loss_opt = {self.loss_opt}; {self.confidence:.0%} intervals)"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entry `answer` of `sweep predict --json`."""
        run = self.loss_prediction_interval
        return {
            **{str(quantity): value for quantity, value in self.estimate.items()},
            "a": self.exponents[0],
            "b": self.exponents[1],
            "ci": {quantity: list(pair) for quantity, pair in self.ci.items()},
            "prediction_interval": {} if run is None else {"loss": list(run)},
            "confidence": self.confidence,
            "level_se": self.level_se,
            "weights": to_plain(self.weights),
            "form_sd": to_plain(self.form_sd),
            "loss_off_2x": dict(self.loss_off),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPrediction:
    """The loss of one run of given size and tokens, by a fitted or published surface."""

    method: str
    n_params: float
    n_tokens: float
    flops: float
    beyond_data: float | None  # flops over the largest fitted flops
    loss: float  # nats per token
    loss_interval: Interval | None  # of the surface; None without draws
    loss_prediction_interval: Interval | None  # of one new run; None without draws or noise
    level_se: float | None  # as in the answer
    confidence: float
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `sweep predict --n-params N --n-tokens D --json`."""
        return dict(fields_to_plain(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The answer and the predictions of every method at one budget."""

    flops: float
    beyond_data: float | None  # flops over the largest fitted flops
    answer: AnswerPrediction | Refusal | None  # None for a published law
    methods: Mapping[str, MethodPrediction | Refusal]
    shape: Mapping[str, Any] | None
    backtest: Backtest | Refusal | None  # of the fit: errors of its methods on the largest budgets

    def to_json(self) -> dict[str, Any]:
        """Return one document of `sweep predict --json`."""
        return {
            "flops": self.flops,
            "beyond_data": self.beyond_data,
            "answer": to_plain(self.answer),
            "methods": {name: method.to_json() for name, method in self.methods.items()},
            "shape": None if self.shape is None else dict(self.shape),
            "backtest": to_plain(self.backtest),
        }
