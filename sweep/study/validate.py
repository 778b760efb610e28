"""Validation of a sweep's answer: register a prediction, train it and its neighbours, and score it.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweep import flops
from sweep.config import ExperimentConfig, ModelConfig
from sweep.data.tokenizers.tokenizers import vocab_size
from sweep.errors import InputError, SafetyError
from sweep.plan.grid import make_plan
from sweep.plan.shapes import nearest_shape, width_step
from sweep.records import Plan
from sweep.store.run_store import RunStore
from sweep.store.status import SweepStatus
from sweep.store.validations import Registration, Validation, read_registration, register
from sweep.study.checks import check_parallel
from sweep.study.plan import DataProgress, arm_experiment, dataset
from sweep.study.registrations import predicted_answer
from sweep.study.run import RunOutcome, run_plans
from sweep.study.scores import score_finished
from sweep.study.speed import device_of

NEIGHBOUR = 1.7
"""Ratio of N between the predicted optimum and the sizes on either side, before rounding to a width."""


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


def _check_untrained(store: RunStore, plan: Plan) -> None:
    """Raise SafetyError if a run of the plan has a result: the prediction would not precede it."""
    trained = next((run for run in plan.runs if store.has_result(run.run_key)), None)
    if trained is not None:
        raise SafetyError(
            f"{trained.config.name} was trained before its prediction could be registered: validate another "
            f"budget"
        )
