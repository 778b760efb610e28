"""Predictions of a fit: its answer and every method's optimum at given budgets, and the loss of a given run.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.errors import InputError
from sweep.fit.answer import AnswerLaw
from sweep.fit.fit import Fit
from sweep.fit.laws.base import QUANTITIES, Interval, Law, coverage_warning, percentiles
from sweep.fit.laws.drawn_law import DrawnLaw
from sweep.fit.laws.lifetime import LifetimeOptimum, lifetime_optimum
from sweep.fit.laws.surface import surface_loss
from sweep.fit.prediction import AnswerPrediction, MethodPrediction, Prediction, RunPrediction
from sweep.fit.refusals import Refusal

FloatArray = npt.NDArray[np.float64]
ShapeFunction = Callable[[float, float], Mapping[str, Any]]
"""Returns the concrete run (widths, batch, learning rate, steps) for N and D."""

SHAPE_PREFERENCE = ("parametric", "isoflop")  # of the concrete run, for a fit without an answer
MEASURED = "parametric"  # if it refuses a budget, so do the laws with assumed exponents
OFF = 2.0  # factor in N, either way, for which the excess loss is given
NO_LIMIT = math.inf
ROUNDING = 1e-9
NEAR = 0.9  # of the smallest fitted budget: a warning is given below


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Options of a prediction."""

    shape: ShapeFunction | None = None
    family: tuple[FloatArray, FloatArray] | None = None  # N and FLOPs per token of plannable sizes, ascending
    max_interval_factor: float = NO_LIMIT  # a prediction with a wider interval on N_opt is refused
    max_reach: float = NO_LIMIT  # a budget more times the largest fitted one is refused
    inference_tokens: float | None = None  # served over the model's life, for the lifetime optimum


def predict(fit: Fit, flops: Sequence[float], question: Question | None = None) -> tuple[Prediction, ...]:
    """Predict the optimum at each budget of `flops`; refusals of the fit are passed on.

    A budget more than `question.max_reach` times the largest fitted one is refused, and a method where its
    interval on N_opt is wider than `question.max_interval_factor`.

    Raises:
        InputError: a budget is not a finite number above zero.
    """
    question = question or Question()
    return tuple(_predict_one(fit, float(budget), question) for budget in flops)


def _predict_one(fit: Fit, flops: float, question: Question) -> Prediction:
    if not (math.isfinite(flops) and flops > 0):
        raise InputError(f"flops={flops} is not a valid budget: give a finite number above zero")
    too_far = too_far_beyond(fit, flops, question.max_reach)
    answer = too_far or _predict_answer(fit, flops, question)
    methods = {
        name: too_far or _predict(method, fit, flops, question) for name, method in _shown(fit).items()
    }
    methods |= _assumed_extrapolations(fit, flops, methods)
    return Prediction(
        flops=flops,
        beyond_data=beyond_data(fit, flops),
        answer=answer,
        methods=methods,
        shape=None if question.shape is None else _shape(fit, answer, methods, question.shape),
        backtest=fit.backtest,
    )


def _shown(fit: Fit) -> Mapping[str, Law | Refusal]:
    """Return the methods; where the answer leaves runs out, those of its laws are without them too."""
    if isinstance(fit.answer, AnswerLaw) and fit.answer.without:
        return {**fit.methods, **fit.answer.laws}
    return fit.methods


def beyond_data(fit: Fit, flops: float) -> float | None:
    """Return `flops` over the largest fitted budget; None without points."""
    return None if fit.flops_max is None else flops / fit.flops_max


def too_far_beyond(fit: Fit, flops: float, max_reach: float) -> Refusal | None:
    """Return a refusal if `flops` is more than `max_reach` times the largest budget that was fitted.

    Published laws are not limited.
    """
    reach = beyond_data(fit, flops)
    if reach is None or not fit.n_points or reach <= max_reach * (1 + ROUNDING):
        return None
    largest = flops / reach
    return Refusal(
        kind="extrapolation",
        reason=f"{_short(flops)} FLOPs are {_short(reach)} times the largest fitted budget "
        f"({_short(largest)}), and the points bear at most fit.max_reach={max_reach:g} times: ask for "
        f"{_short(largest * max_reach)} FLOPs or less, or add runs at {_short(flops / max_reach)} FLOPs",
    )


def _short(value: float) -> str:
    return re.sub(r"e\+0*", "e", f"{value:.3g}")


def _predict_answer(fit: Fit, flops: float, question: Question) -> AnswerPrediction | Refusal | None:
    law = fit.answer
    if law is None or isinstance(law, Refusal):
        return law
    found = _predict_method(law.warned(_below_data(fit, flops)), flops, question, _side(fit, flops))
    if isinstance(found, Refusal):
        return found
    return AnswerPrediction(
        estimate=found.estimate,
        ci=found.ci,
        loss_prediction_interval=found.loss_prediction_interval,
        confidence=law.confidence,
        level_se=law.level_se,
        exponents=law.exponents,
        weights={str(quantity): weights for quantity, weights in law.weights.items()},
        form_sd=law.form_sd,
        loss_off=found.loss_off,
        warnings=found.warnings,
    )


def _predict(method: Law | Refusal, fit: Fit, flops: float, question: Question) -> MethodPrediction | Refusal:
    if isinstance(method, Refusal):
        return method
    return _predict_method(method.warned(_below_data(fit, flops)), flops, question, _side(fit, flops))


def predict_run(
    fit: Fit, n_params: float, n_tokens: float, *, max_reach: float = NO_LIMIT
) -> RunPrediction | Refusal:
    """Predict the loss of one run of N parameters on D tokens by the surface L(N, D).

    The surface is that of `parametric`, or of a published law. The interval adds to its draws the form error
    of the answer's loss at the run's C; the prediction interval adds run noise and the error of the level
    that all losses share. Half-widths in ln L add in quadrature.

    Raises:
        InputError: N or D is not a finite number above zero.
    """
    for name, value in (("n-params", n_params), ("n-tokens", n_tokens)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} {value:g} is invalid: give a finite number above zero")
    surfaces = [name for name, law in fit.laws.items() if law.surface_theta is not None]
    if not surfaces:
        reason = fit.methods.get(MEASURED)
        why = f": {reason.reason}" if isinstance(reason, Refusal) else ""
        return Refusal(kind="no_surface", reason=f"the fit has no surface L(N, D) by {MEASURED}{why}")
    name = MEASURED if MEASURED in surfaces else surfaces[0]
    law = fit.laws[name]
    curve = getattr(law, "flops_per_token", None)
    flops = n_tokens * (6 * n_params if curve is None else float(curve(n_params)))
    refused = too_far_beyond(fit, flops, max_reach)
    return refused or _predict_run(fit, name, law, (n_params, n_tokens, flops))


def _predict_run(fit: Fit, name: str, law: Law, run: tuple[float, float, float]) -> RunPrediction:
    n_params, n_tokens, flops = run
    assert law.surface_theta is not None
    loss = float(surface_loss(law.surface_theta, n_params, n_tokens))
    interval = noisy = None
    if isinstance(law, DrawnLaw) and law.n_draws:
        low, high = percentiles(surface_loss(law.draws[:, :5], n_params, n_tokens), law.confidence)
        form = _form_half_width(fit, flops, law.confidence)
        interval = _widened(loss, (float(low), float(high)), form)
        if law.noise is not None:
            from scipy.special import stdtrit  # scipy is slow to import

            t = float(stdtrit(law.noise.n_dof, 0.5 + law.confidence / 2))
            level = _level_half_width(fit, loss, law.confidence)
            noisy = _widened(loss, interval, math.hypot(t * law.noise.sd, level))
    return RunPrediction(
        method=name,
        n_params=n_params,
        n_tokens=n_tokens,
        flops=flops,
        beyond_data=beyond_data(fit, flops),
        loss=loss,
        loss_interval=interval,
        loss_prediction_interval=noisy,
        level_se=_level_se(fit),
        confidence=law.confidence,
        warnings=law.warnings,
    )


def _level_se(fit: Fit) -> float | None:
    return fit.answer.level_se if isinstance(fit.answer, AnswerLaw) else None


def _level_half_width(fit: Fit, loss: float, confidence: float) -> float:
    """Return the half-width in ln L of the error that all losses share; 0 where it is not known."""
    return NormalDist().inv_cdf(0.5 + confidence / 2) * (_level_se(fit) or 0.0) / loss


def _form_half_width(fit: Fit, flops: float, confidence: float) -> float:
    """Return the half-width of the form error of ln L at `flops`; 0 within the fitted budgets."""
    if not isinstance(fit.answer, AnswerLaw):
        return 0.0
    efolds = max(0.0, math.log(flops / fit.answer.flops_max))
    return NormalDist().inv_cdf(0.5 + confidence / 2) * fit.answer.form_sd["loss"] * efolds


def _widened(center: float, interval: Interval, half_width: float) -> Interval:
    """Return the interval with a further half-width in logarithms, added in quadrature."""
    log = math.log(center)
    lower = log - math.hypot(log - math.log(interval[0]), half_width)
    upper = log + math.hypot(math.log(interval[1]) - log, half_width)
    return math.exp(lower), math.exp(upper)


def _below_data(fit: Fit, flops: float) -> tuple[str, ...]:
    """Return a warning for a budget below the fitted ones, where intervals do not widen."""
    if fit.flops_range is None or flops >= NEAR * fit.flops_range[0]:
        return ()
    return (
        f"{flops:.3g} FLOPs are {fit.flops_range[0] / flops:.3g} times below the smallest fitted budget: no "
        f"point supports the law there",
    )


def _side(fit: Fit, flops: float) -> tuple[str, str]:
    """Return the side of the points on which a budget lies, and the budgets that are lacking there."""
    is_below = fit.flops_range is not None and flops < fit.flops_range[0]
    return ("below", "smaller") if is_below else ("beyond", "larger")


def _predict_method(
    law: Law, flops: float, question: Question, side: tuple[str, str]
) -> MethodPrediction | Refusal:
    if question.family is not None:
        law = law.with_family(*question.family)
    intervals = {quantity: law.interval(quantity, flops) for quantity in QUANTITIES}
    width = intervals["n_params_opt"]
    if width is not None and not width[1] <= question.max_interval_factor * width[0]:
        return Refusal(
            kind="extrapolation",
            reason=f"{_short(flops)} FLOPs are too far {side[0]} the points: the interval of N_opt "
            f"[{_short(width[0])}, {_short(width[1])}] is wider than fit.max_interval_factor="
            f"{question.max_interval_factor:g}; add runs at {side[1]} budgets, or more seeds",
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
        doubted=law.doubted,
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
    side, lacking = _side(fit, flops)
    refusal = Refusal(
        kind="extrapolation",
        reason=f"{_short(flops)} FLOPs are too far {side} the points: the exponents of this law are assumed, "
        f"and with those measured by {MEASURED} N_opt is not determined; add {lacking} budgets, or more "
        f"seeds",
    )
    return {
        name: refusal
        for name, law in _shown(fit).items()
        if isinstance(law, Law) and law.assumes_exponents and isinstance(methods[name], MethodPrediction)
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
    fit: Fit,
    answer: AnswerPrediction | Refusal | None,
    methods: Mapping[str, MethodPrediction | Refusal],
    shape: ShapeFunction,
) -> Mapping[str, Any] | None:
    """Return the run of the answer.

    Without one it is that of the first method in order of preference; doubted laws come last.
    """
    if isinstance(answer, AnswerPrediction):
        return {
            "method": "answer",
            **shape(answer.estimate["n_params_opt"], answer.estimate["n_tokens_opt"]),
        }
    if isinstance(answer, Refusal):
        return None
    answers = {name: method for name, method in methods.items() if isinstance(method, MethodPrediction)}
    preferred = [name for name in SHAPE_PREFERENCE if name in answers]
    for name in sorted((*preferred, *answers), key=lambda name: fit.laws[name].doubted):
        method = answers[name]
        if "n_params_opt" in method.estimate:
            chosen = shape(method.estimate["n_params_opt"], method.estimate["n_tokens_opt"])
            return {"method": name, **chosen}
    return None
