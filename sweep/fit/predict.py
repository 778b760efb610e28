"""Predictions of a fit: the optimum at given budgets by every method, with intervals and warnings.

Legend: N parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.errors import InputError
from sweep.fit.checks.backtest import Backtest
from sweep.fit.fit import Fit
from sweep.fit.laws.base import QUANTITIES, Interval, Law, Quantity, coverage_warning
from sweep.fit.laws.encoding import to_plain
from sweep.fit.laws.lifetime import LifetimeOptimum, lifetime_optimum
from sweep.fit.refusals import Refusal

FloatArray = npt.NDArray[np.float64]
ShapeFunction = Callable[[float, float], Mapping[str, Any]]
"""Returns the concrete run (widths, batch, learning rate, steps) for N and D."""

SHAPE_PREFERENCE = ("parametric", "isoflop")  # methods from which the concrete run is taken, in order
MEASURED = "parametric"  # if it refuses a budget, so do the laws with assumed exponents
OFF = 2.0  # factor in N, either way, for which the excess loss is given
NO_LIMIT = math.inf
NEAR = 0.9  # of the smallest fitted budget: a warning is given below


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Options of a prediction."""

    shape: ShapeFunction | None = None
    family: tuple[FloatArray, FloatArray] | None = None  # N and FLOPs per token of plannable sizes, ascending
    max_interval_factor: float = NO_LIMIT  # a prediction with a wider interval on N_opt is refused
    inference_tokens: float | None = None  # served over the model's life, for the lifetime optimum


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
            **({} if self.lifetime is None else {"lifetime": self.lifetime.to_json()}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The predictions of every method at one budget."""

    flops: float
    beyond_data: float | None  # flops over the largest fitted flops
    methods: Mapping[str, MethodPrediction | Refusal]
    shape: Mapping[str, Any] | None
    backtest: Backtest | Refusal | None  # of the fit: errors of its methods on the largest budgets

    def to_json(self) -> dict[str, Any]:
        """Return one document of `sweep predict --json`."""
        return {
            "flops": self.flops,
            "beyond_data": self.beyond_data,
            "methods": {name: method.to_json() for name, method in self.methods.items()},
            "shape": None if self.shape is None else dict(self.shape),
            "backtest": to_plain(self.backtest),
        }


def predict(fit: Fit, flops: Sequence[float], question: Question | None = None) -> tuple[Prediction, ...]:
    """Predict the optimum at each budget of `flops` by every method; refusals of the fit are passed on.

    A method is refused at a budget where its interval on N_opt is wider than `question.max_interval_factor`.

    Raises:
        InputError: a budget is not a finite number above zero.
    """
    question = question or Question()
    return tuple(_predict_one(fit, float(budget), question) for budget in flops)


def _predict_one(fit: Fit, flops: float, question: Question) -> Prediction:
    if not (math.isfinite(flops) and flops > 0):
        raise InputError(f"flops={flops} is not a valid budget: give a finite number above zero")
    below = _below_data(fit, flops)
    methods = {
        name: method
        if isinstance(method, Refusal)
        else _predict_method(method.warned(below), flops, question)
        for name, method in fit.methods.items()
    }
    methods |= _assumed_extrapolations(fit, flops, methods)
    return Prediction(
        flops=flops,
        beyond_data=None if fit.flops_range is None else flops / fit.flops_range[1],
        methods=methods,
        shape=None if question.shape is None else _shape(fit, methods, question.shape),
        backtest=fit.backtest,
    )


def _below_data(fit: Fit, flops: float) -> tuple[str, ...]:
    """Return a warning for a budget below the fitted ones, where intervals do not widen."""
    if fit.flops_range is None or flops >= NEAR * fit.flops_range[0]:
        return ()
    return (
        f"{flops:.3g} FLOPs are {fit.flops_range[0] / flops:.3g} times below the smallest fitted budget: no "
        f"point supports the law there",
    )


def _predict_method(law: Law, flops: float, question: Question) -> MethodPrediction | Refusal:
    if question.family is not None:
        law = law.with_family(*question.family)
    intervals = {quantity: law.interval(quantity, flops) for quantity in QUANTITIES}
    width = intervals["n_params_opt"]
    if width is not None and not width[1] <= question.max_interval_factor * width[0]:
        return Refusal(
            kind="extrapolation",
            reason=f"{flops:.3g} FLOPs are too far beyond the points: the interval of N_opt "
            f"[{width[0]:.3g}, {width[1]:.3g}] is wider than fit.max_interval_factor="
            f"{question.max_interval_factor:g}; add runs at larger budgets, or more seeds",
        )
    estimates = {quantity: law.estimate(quantity, flops) for quantity in QUANTITIES}
    return MethodPrediction(
        estimate={quantity: value for quantity, value in estimates.items() if math.isfinite(value)},
        ci={quantity: pair for quantity, pair in intervals.items() if pair is not None},
        loss_prediction_interval=law.prediction_interval(flops),
        loss_off=_loss_off(law, flops),
        unproved=law.unproved,
        notes=law.notes,
        warnings=(*law.warnings, *coverage_warning(law, flops)),
        lifetime=_lifetime(law, flops, question.inference_tokens),
    )


def _assumed_extrapolations(
    fit: Fit, flops: float, methods: Mapping[str, MethodPrediction | Refusal]
) -> dict[str, Refusal]:
    """Return refusals of laws with assumed exponents where the law with measured ones is refused.

    The interval of such a law stays narrow at any distance, because of its assumption and not of the data.
    """
    measured = methods.get(MEASURED)
    if not isinstance(measured, Refusal) or measured.kind != "extrapolation":
        return {}
    refusal = Refusal(
        kind="extrapolation",
        reason=f"{flops:.3g} FLOPs are too far beyond the points: the exponents of this law are assumed, and "
        f"with those measured by {MEASURED} N_opt is not determined; add larger budgets, or more seeds",
    )
    return {
        name: refusal
        for name, law in fit.laws.items()
        if law.assumes_exponents and isinstance(methods[name], MethodPrediction)
    }


def _loss_off(law: Law, flops: float) -> dict[str, float]:
    excess = {}
    for name, factor in (("half_n", 1 / OFF), ("double_n", OFF)):
        loss = law.loss_off_optimum(flops, factor)
        if loss is not None:
            excess[name] = loss - law.loss_opt(flops)
    return excess


def _lifetime(law: Law, flops: float, inference_tokens: float | None) -> LifetimeOptimum | None:
    theta, curve = law.surface_theta, getattr(law, "flops_per_token", None)
    if inference_tokens is None or theta is None or curve is None:
        return None
    return lifetime_optimum(theta, curve, law.n_params_opt(flops), law.loss_opt(flops), inference_tokens)


def _shape(
    fit: Fit, methods: Mapping[str, MethodPrediction | Refusal], shape: ShapeFunction
) -> Mapping[str, Any] | None:
    """Return the run of the first method in order of preference; doubted laws come last."""
    answers = {name: method for name, method in methods.items() if isinstance(method, MethodPrediction)}
    preferred = [name for name in SHAPE_PREFERENCE if name in answers]
    for name in sorted((*preferred, *answers), key=lambda name: fit.laws[name].doubted):
        method = answers[name]
        if "n_params_opt" in method.estimate:
            chosen = shape(method.estimate["n_params_opt"], method.estimate["n_tokens_opt"])
            return {"method": name, **chosen}
    return None
