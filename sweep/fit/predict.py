"""What a fit says about budgets nobody has paid for yet.

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
from sweep.fit.fit import Fit
from sweep.fit.laws.base import QUANTITIES, Interval, Law, Quantity, beside_warning
from sweep.fit.laws.lifetime import LifetimeOptimum, lifetime_optimum
from sweep.fit.refusals import Refusal

FloatArray = npt.NDArray[np.float64]
ShapeFunction = Callable[[float, float], Mapping[str, Any]]
"""Gives the concrete run (widths, batch, learning rate, steps) for N and D."""

SHAPE_PREFERENCE = ("parametric", "isoflop")  # whose optimum the shape is made for
MEASURED = "parametric"  # whose refusal binds the laws that assume their exponents
OFF = 2.0  # how far off in N, either way, the price of a mistake is told
NO_LIMIT = math.inf
NEAR = 0.9  # of the smallest fitted budget: a little below it is no extrapolation to speak of


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked beside the budgets."""

    shape: ShapeFunction | None = None
    family: tuple[FloatArray, FloatArray] | None = None  # N and FLOPs per token of plannable sizes, rising
    max_interval_factor: float = NO_LIMIT  # an interval on N_opt wider than this is refused
    inference_tokens: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodPrediction:
    """One method's optimum at one budget."""

    estimate: Mapping[Quantity, float]  # without the quantities the law does not give
    ci: Mapping[Quantity, Interval]  # of the law; empty without bootstrap draws
    loss_prediction_interval: Interval | None  # of one new run
    loss_off: Mapping[str, float]  # loss paid for half and for twice the optimal N; empty without a surface
    unproved: tuple[Quantity, ...]  # quantities whose interval has no proved coverage
    notes: tuple[str, ...]  # of a published law's origin
    warnings: tuple[str, ...]  # of the law, and of its interval here
    lifetime: LifetimeOptimum | None  # where inference tokens are given and the law is a surface

    def to_json(self) -> dict[str, Any]:
        """Its entry in `sweep predict --json`."""
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
    """Every method's answer at one budget."""

    flops: float
    beyond_data: float | None  # flops over the largest fitted flops
    methods: Mapping[str, MethodPrediction | Refusal]
    shape: Mapping[str, Any] | None
    backtest: Mapping[str, Any] | None  # of the fit: what its methods were worth one step before

    def to_json(self) -> dict[str, Any]:
        """One document of `sweep predict --json`."""
        return {
            "flops": self.flops,
            "beyond_data": self.beyond_data,
            "methods": {name: method.to_json() for name, method in self.methods.items()},
            "shape": None if self.shape is None else dict(self.shape),
            "backtest": None if self.backtest is None else dict(self.backtest),
        }


def predict(fit: Fit, flops: Sequence[float], question: Question | None = None) -> tuple[Prediction, ...]:
    """The optimum at each budget of `flops` by every method; refusals are passed on.

    A method whose interval on N_opt is wider than `question.max_interval_factor` is refused at that budget.

    Raises:
        InputError: a budget is not a finite number above zero.
    """
    asked = question or Question()
    return tuple(_predict_one(fit, float(budget), asked) for budget in flops)


def _predict_one(fit: Fit, flops: float, asked: Question) -> Prediction:
    if not (math.isfinite(flops) and flops > 0):
        raise InputError(f"flops={flops} is not a budget: give a finite number above zero")
    below = _below_data(fit, flops)
    methods = {
        name: method if isinstance(method, Refusal) else _ask(method.warned(below), flops, asked)
        for name, method in fit.methods.items()
    }
    methods |= _borrowed_certainty(fit, flops, methods)
    return Prediction(
        flops=flops,
        beyond_data=None if fit.flops_range is None else flops / fit.flops_range[1],
        methods=methods,
        shape=None if asked.shape is None else _shape(fit, methods, asked.shape),
        backtest=fit.backtest or None,
    )


def _below_data(fit: Fit, flops: float) -> tuple[str, ...]:
    """A sentence for budgets under the smallest fitted one, where no interval looks wide."""
    if fit.flops_range is None or flops >= NEAR * fit.flops_range[0]:
        return ()
    return (
        f"{flops:.3g} FLOPs are {fit.flops_range[0] / flops:.3g} times below the smallest fitted budget, "
        f"where nothing bears the law out",
    )


def _ask(law: Law, flops: float, asked: Question) -> MethodPrediction | Refusal:
    if asked.family is not None:
        law = law.with_family(*asked.family)
    intervals = {quantity: law.interval(quantity, flops) for quantity in QUANTITIES}
    width = intervals["n_params_opt"]
    if width is not None and not width[1] <= asked.max_interval_factor * width[0]:
        return Refusal(
            kind="extrapolation",
            reason=f"{flops:.3g} FLOPs are further than the points can bear: N_opt is only known to lie in "
            f"[{width[0]:.3g}, {width[1]:.3g}], wider than fit.max_interval_factor="
            f"{asked.max_interval_factor:g}; runs at larger budgets, or more seeds, would help",
        )
    estimates = {quantity: law.estimate(quantity, flops) for quantity in QUANTITIES}
    return MethodPrediction(
        estimate={quantity: value for quantity, value in estimates.items() if math.isfinite(value)},
        ci={quantity: pair for quantity, pair in intervals.items() if pair is not None},
        loss_prediction_interval=law.prediction_interval(flops),
        loss_off=_loss_off(law, flops),
        unproved=law.unproved,
        notes=law.notes,
        warnings=(*law.warnings, *beside_warning(law, flops)),
        lifetime=_lifetime(law, flops, asked.inference_tokens),
    )


def _borrowed_certainty(
    fit: Fit, flops: float, methods: Mapping[str, MethodPrediction | Refusal]
) -> dict[str, Refusal]:
    """Refusals of laws whose exponents are assumed, where those measured on the same points cannot answer.

    Such a law's interval stays narrow at any distance, by its assumption and not by the data.
    """
    measured = methods.get(MEASURED)
    if not isinstance(measured, Refusal) or measured.kind != "extrapolation":
        return {}
    refusal = Refusal(
        kind="extrapolation",
        reason=f"{flops:.3g} FLOPs are further than the points can bear: its exponents are assumed, and with "
        f"those that {MEASURED} measures N_opt is not known; larger budgets, or more seeds, would help",
    )
    return {
        name: refusal
        for name, law in fit.laws.items()
        if law.assumes_exponents and isinstance(methods[name], MethodPrediction)
    }


def _loss_off(law: Law, flops: float) -> dict[str, float]:
    paid = {}
    for name, factor in (("half_n", 1 / OFF), ("double_n", OFF)):
        loss = law.loss_off_optimum(flops, factor)
        if loss is not None:
            paid[name] = loss - law.loss_opt(flops)
    return paid


def _lifetime(law: Law, flops: float, inference_tokens: float | None) -> LifetimeOptimum | None:
    theta, curve = law.surface_theta, getattr(law, "flops_per_token", None)
    if inference_tokens is None or theta is None or curve is None:
        return None
    return lifetime_optimum(theta, curve, law.n_params_opt(flops), law.loss_opt(flops), inference_tokens)


def _shape(
    fit: Fit, methods: Mapping[str, MethodPrediction | Refusal], shape: ShapeFunction
) -> Mapping[str, Any] | None:
    """The run for the first method in order of preference that has an answer, one that is doubted last."""
    answers = {name: method for name, method in methods.items() if isinstance(method, MethodPrediction)}
    preferred = [name for name in SHAPE_PREFERENCE if name in answers]
    for name in sorted((*preferred, *answers), key=lambda name: fit.laws[name].doubted):
        method = answers[name]
        if "n_params_opt" in method.estimate:
            chosen = shape(method.estimate["n_params_opt"], method.estimate["n_tokens_opt"])
            return {"method": name, **chosen}
    return None
