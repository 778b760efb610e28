"""Validation of a sweep's answer: register a prediction, train it and its neighbours, and score it.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist, fmean

import numpy as np

from sweep import flops
from sweep.config import ExperimentConfig, ModelConfig
from sweep.data.tokenizers.tokenizers import vocab_size
from sweep.errors import InputError, SafetyError
from sweep.fit import Fit, Prediction, Refusal
from sweep.fit.predict import AnswerPrediction
from sweep.identity import code_version, sha256_json
from sweep.plan.grid import make_plan
from sweep.plan.shapes import nearest_shape, width_step
from sweep.records import Plan, Point
from sweep.store.run_store import RunStore
from sweep.store.status import SweepStatus
from sweep.store.validations import (
    Interval,
    Registration,
    SizeLoss,
    Validation,
    ValidationRun,
    append_validations,
    read_registration,
    read_registrations,
    register,
)
from sweep.study.checks import check_parallel
from sweep.study.laws import MIN_VALIDATED, choose_arm, fit_arms
from sweep.study.plan import DataProgress, arm_experiment, dataset
from sweep.study.predictions import predict
from sweep.study.run import RunOutcome, run_plans
from sweep.study.speed import device_of

NEIGHBOUR = 1.7
"""Ratio of N between the predicted optimum and the sizes on either side, before rounding to a width."""
MAX_LOG_HALF_WIDTH = 20.0  # of the interval of a measured N_opt, against overflow


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationOutcome:
    """The end of a call of `validate`."""

    run: RunOutcome
    registration: Registration
    validation: Validation | None  # None while runs are left to train


def validate(
    sweep_dir: Path,
    budget: float,
    *,
    arm: str | None = None,
    on_progress: DataProgress | None = None,
    on_status: Callable[[SweepStatus], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ValidationOutcome:
    """Register the answer at a budget, train its run and the sizes on either side, and score the prediction.

    Raises as `validate_all`.
    """
    (outcome,) = validate_all(
        sweep_dir,
        (budget,),
        arm=arm,
        on_progress=on_progress,
        on_status=on_status,
        should_stop=should_stop,
    )
    return outcome


def validate_all(
    sweep_dir: Path,
    budgets: Sequence[float],
    *,
    arm: str | None = None,
    on_progress: DataProgress | None = None,
    on_status: Callable[[SweepStatus], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[ValidationOutcome]:
    """Register the answers at several budgets, all before any run of them is trained; train and score them.

    A second call with the same budgets continues the registered predictions; finished ones are only read. The
    runs are part of the sweep: later fits contain them.

    Raises:
        InputError: the sweep has no answer at a budget, or its run cannot be trained.
        SafetyError: a registered prediction was changed, or a run of it was trained before.
    """
    store = RunStore(sweep_dir)
    experiment = arm_experiment(store, arm)
    known = {budget: read_registration(sweep_dir, budget, arm) for budget in budgets}
    unfinished = [
        budget
        for budget, registered in known.items()
        if registered is None or _scored(sweep_dir, registered) is None
    ]
    if unfinished:
        outcome = _train(
            store,
            experiment,
            {budget: known[budget] for budget in unfinished},
            arm,
            on_progress=on_progress,
            on_status=on_status,
            should_stop=should_stop,
        )
    else:
        outcome = RunOutcome(status=store.status(), was_finished=True)
    return [_outcome(sweep_dir, budget, arm, outcome) for budget in known]


def _train(
    store: RunStore,
    experiment: ExperimentConfig,
    known: Mapping[float, Registration | None],
    arm: str | None,
    *,
    on_progress: DataProgress | None,
    on_status: Callable[[SweepStatus], None],
    should_stop: Callable[[], bool],
) -> RunOutcome:
    """Register what is not yet in `known`, and train the runs of all its budgets."""
    predictions = {
        budget: predicted_answer(store.sweep_dir, experiment, budget, arm)
        for budget, registered in known.items()
        if registered is None
    }

    def plan_all(arms: Sequence[ExperimentConfig]) -> list[Plan]:
        plans = []
        for budget, registered in known.items():
            if registered is not None:
                plan = validation_plan(arms[0], budget, registered.d_models)
                _check_same_runs(registered, plan)
            else:
                n_params = predictions[budget].n_params
                plan = validation_plan(arms[0], budget, neighbouring_widths(arms[0], n_params))
                _check_center(plan, n_params)
            plans.append(plan)
        return plans

    def before_training(plans: Sequence[Plan]) -> None:
        new = [
            (predictions[budget], plan)
            for budget, plan in zip(known, plans, strict=True)
            if budget in predictions
        ]
        for _, plan in new:
            _check_untrained(store, plan)
        for prediction, plan in new:
            register(store.sweep_dir, prediction.registration(plan))

    return run_plans(
        [experiment] * len(known),  # one per plan
        plan_all,
        store.sweep_dir,
        on_progress=on_progress,
        on_status=on_status,
        should_stop=should_stop,
        before_training=before_training,
    )


def _outcome(sweep_dir: Path, budget: float, arm: str | None, run: RunOutcome) -> ValidationOutcome:
    registered = read_registration(sweep_dir, budget, arm)
    assert registered is not None
    return ValidationOutcome(run=run, registration=registered, validation=_scored(sweep_dir, registered))


def _scored(sweep_dir: Path, registration: Registration) -> Validation | None:
    """Return the score of a registered prediction; None while runs are left."""
    every = score_finished(sweep_dir)
    return next((one for one in every if one.registration.name == registration.name), None)


def largest_planned_budget(sweep_dir: Path) -> float:
    """Return the largest budget of the sweep's plans, validations aside."""
    experiments = RunStore(sweep_dir).arm_experiments()
    return max(budget for experiment in experiments for budget in experiment.budgets)


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedAnswer:
    """The answer at a budget before it is registered."""

    flops: float
    arm: str | None
    reach: float
    n_params: int  # of the concrete run
    answer: AnswerPrediction
    run_noise_sd: float | None
    n_points: int
    points_sha256: str

    def registration(self, plan: Plan) -> Registration:
        """Return the prediction with the runs of its plan, at the present time."""
        answer = self.answer
        loss_interval = answer.loss_prediction_interval or answer.ci["loss_opt"]
        return Registration(
            registered_at=_now(),
            flops=self.flops,
            arm=self.arm,
            reach=self.reach,
            confidence=answer.confidence,
            n_params_opt=answer.estimate["n_params_opt"],
            n_params_opt_interval=answer.ci["n_params_opt"],
            n_tokens_opt=answer.estimate["n_tokens_opt"],
            n_tokens_opt_interval=answer.ci["n_tokens_opt"],
            loss_opt=answer.estimate["loss_opt"],
            loss_opt_interval=answer.ci["loss_opt"],
            loss_interval=loss_interval,
            run_noise_sd=self.run_noise_sd,
            n_points=self.n_points,
            points_sha256=self.points_sha256,
            code_version=code_version(),
            runs=tuple(_runs(plan)),
        )


def predicted_answer(
    sweep_dir: Path, experiment: ExperimentConfig, budget: float, arm: str | None
) -> PredictedAnswer:
    """Fit the sweep and return its answer at a budget. Raises InputError where there is none."""
    fitted = choose_arm(fit_arms(sweep_dir, experiment.fit), arm)
    (prediction,) = predict(fitted, (budget,), family=experiment)
    answer = _answer(fitted, prediction)
    assert prediction.shape is not None
    return PredictedAnswer(
        flops=budget,
        arm=arm,
        reach=prediction.beyond_data or 0.0,
        n_params=prediction.shape["n_params"],
        answer=answer,
        run_noise_sd=_run_noise(fitted),
        n_points=fitted.n_points,
        points_sha256=_points_sha256(sweep_dir, fitted, arm),
    )


def _answer(fitted: Fit, prediction: Prediction) -> AnswerPrediction:
    answer = prediction.answer
    if answer is None or isinstance(answer, Refusal):
        reason = "the fit has no answer" if answer is None else answer.reason
        raise InputError(f"there is no prediction to validate at {prediction.flops:.4g} FLOPs: {reason}")
    if (prediction.beyond_data or 0.0) < MIN_VALIDATED:
        assert fitted.flops_range is not None
        raise InputError(
            f"{prediction.flops:.4g} FLOPs are not beyond the fitted budgets, so there is nothing to "
            f"validate: give more than {fitted.flops_range[1] * MIN_VALIDATED:.4g} FLOPs"
        )
    if "loss_opt" not in answer.ci:
        raise InputError("the prediction has no interval to validate: set fit.n_bootstrap above 0")
    return answer


def _run_noise(fitted: Fit) -> float | None:
    noise = None if fitted.answer is None or isinstance(fitted.answer, Refusal) else fitted.answer.noise
    return None if noise is None else noise.sd


def _points_sha256(sweep_dir: Path, fitted: Fit, arm: str | None) -> str:
    """Return the SHA-256 of the canonical JSON of [run key, loss] of the fitted points, sorted."""
    left_out = {point.run_key for point in fitted.excluded}
    points = RunStore(sweep_dir).points().points
    used = [point for point in points if point.arm == arm and point.run_key not in left_out]
    return sha256_json(sorted([str(point.run_key), point.loss] for point in used))


def neighbouring_widths(experiment: ExperimentConfig, n_params: int) -> tuple[int, ...]:
    """Return the widths of the predicted optimum and of a smaller and a larger size, ascending.

    The neighbours are the plannable sizes nearest to `NEIGHBOUR` times N and N over it; at the smallest width
    there is none below.
    """
    n_vocab = vocab_size(experiment.tokenizer)

    def width(target: float) -> int:
        return nearest_shape(_total, target, experiment.model, n_vocab).d_model

    center, step = width(n_params), width_step(experiment.model)
    lower = min(width(n_params / NEIGHBOUR), center - step)
    upper = max(width(n_params * NEIGHBOUR), center + step)
    return tuple(value for value in (lower, center, upper) if value >= step)


def _total(model: ModelConfig) -> float:
    return flops.n_params(model).total


def validation_plan(experiment: ExperimentConfig, budget: float, widths: Sequence[int]) -> Plan:
    """Return the runs of a validation: one size a width at one budget, with the experiment's seeds and rules.

    Raises InputError as `make_plan`.
    """
    grid = replace(experiment.grid, d_model=tuple(widths), n_params=None)
    planned = replace(experiment, budgets=(budget,), grid=grid)
    plan = make_plan(planned, dataset(experiment), device_of(experiment))
    check_parallel(plan)
    return replace(plan, warnings=(), validation=True)


def _check_center(plan: Plan, n_params: int) -> None:
    """Raise InputError if the plan lacks the predicted optimum."""
    if all(run.n_params != n_params for run in plan.runs):
        reasons = "; ".join(f"{cell.name}: {cell.reason}" for cell in plan.dropped)
        raise InputError(f"the predicted optimum, {n_params} parameters, cannot be trained ({reasons})")


def _check_same_runs(registered: Registration, plan: Plan) -> None:
    """Raise SafetyError if the registered runs are no longer those that the sweep would train."""
    if not {run.run_key for run in registered.runs} <= {run.run_key for run in plan.runs}:
        raise SafetyError(
            f"the sweep's settings have changed since its prediction at {registered.flops:.4g} FLOPs was "
            f"registered: plan the former experiment again with sweep run, or validate another budget"
        )


def _runs(plan: Plan) -> Iterator[ValidationRun]:
    for run in sorted(plan.runs, key=lambda run: (run.n_params, run.config.seed)):
        config = run.config
        yield ValidationRun(
            run_key=run.run_key,
            name=config.name,
            d_model=config.model.d_model,
            n_layers=config.model.n_layers,
            n_params=run.n_params,
            n_tokens=config.n_tokens,
            flops=run.flops,
            seed=config.seed,
        )


def _check_untrained(store: RunStore, plan: Plan) -> None:
    """Raise SafetyError if a run of the plan has a result: the prediction would not precede it."""
    trained = next((run for run in plan.runs if store.has_result(run.run_key)), None)
    if trained is not None:
        raise SafetyError(
            f"{trained.config.name} was trained before its prediction could be registered: validate another "
            f"budget"
        )


def score_finished(sweep_dir: Path) -> tuple[Validation, ...]:
    """Score every registered prediction with a result of all its runs and return all scores.

    New scores are added to validations.json. A run that failed is no result: calling `validate` again tries
    it again.
    """
    points = {str(point.run_key): point for point in RunStore(sweep_dir).points().points}
    scored = []
    for registration in read_registrations(sweep_dir):
        if points.keys() >= {run.run_key for run in registration.runs}:
            validation = score(registration, points)
            scored += [] if validation is None else [validation]
    return append_validations(sweep_dir, scored)


def score(registration: Registration, points: Mapping[str, Point]) -> Validation | None:
    """Compare a registered prediction with its runs, `points` by run key; None if no run gave a loss.

    The measured loss is the lowest mean over seeds of a size. N_opt is measured by a parabola of L in ln N
    through the means where a size between others is the best one; its interval follows from the run noise.
    """
    sizes = _size_losses(registration, points)
    if not sizes:
        return None
    best = min(sizes, key=lambda size: size.loss)
    low, high = registration.loss_interval
    n_opt, n_interval = _measured_optimum(sizes, registration)
    inside = None
    if n_opt is not None:
        measured = n_interval or (n_opt, n_opt)
        predicted = registration.n_params_opt_interval
        inside = measured[0] <= predicted[1] and predicted[0] <= measured[1]
    return Validation(
        registration=registration,
        sha256=registration.sha256,
        scored_at=_now(),
        sizes=sizes,
        loss=best.loss,
        n_params=best.n_params,
        n_tokens=best.n_tokens,
        loss_error=registration.loss_opt / best.loss - 1.0,
        loss_inside=low <= best.loss <= high,
        n_params_opt=n_opt,
        n_params_opt_interval=n_interval,
        n_params_opt_error=None if n_opt is None else registration.n_params_opt / n_opt - 1.0,
        n_params_opt_inside=inside,
    )


def _size_losses(registration: Registration, points: Mapping[str, Point]) -> tuple[SizeLoss, ...]:
    losses: dict[int, list[float]] = {}
    tokens: dict[int, int] = {}
    for run in registration.runs:
        point = points.get(run.run_key)
        if point is not None and point.loss is not None:
            losses.setdefault(run.n_params, []).append(point.loss)
            tokens[run.n_params] = run.n_tokens
    return tuple(
        SizeLoss(n_params=n, n_tokens=tokens[n], n_runs=len(values), loss=fmean(values))
        for n, values in sorted(losses.items())
    )


def _measured_optimum(
    sizes: Sequence[SizeLoss], registration: Registration
) -> tuple[float | None, Interval | None]:
    """Return the minimum of a parabola in ln N with its interval; None if the sizes do not bracket it.

    The interval is by the delta method, with the registered run noise.
    """
    best = min(range(len(sizes)), key=lambda index: sizes[index].loss)
    if not 0 < best < len(sizes) - 1:
        return None, None
    log_n = np.log([size.n_params for size in sizes])
    centered = log_n - log_n[best]
    design = np.vander(centered, 3, increasing=True)
    weight = np.sqrt([size.n_runs for size in sizes])[:, None]
    inverse = np.linalg.pinv(design * weight)
    _, slope, curvature = inverse @ (weight[:, 0] * np.array([size.loss for size in sizes]))
    position = -slope / (2.0 * curvature)
    n_opt = math.exp(log_n[best] + position)
    if registration.run_noise_sd is None:
        return n_opt, None
    gradient = np.array([0.0, -1.0 / (2.0 * curvature), slope / (2.0 * curvature**2)])
    sd = registration.run_noise_sd * sizes[best].loss
    half = NormalDist().inv_cdf(0.5 + registration.confidence / 2) * sd * math.hypot(*(gradient @ inverse))
    half = min(half, MAX_LOG_HALF_WIDTH)
    return n_opt, (n_opt * math.exp(-half), n_opt * math.exp(half))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
