"""The commands that follow a verb: its last line, and `next` in its JSON document."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.shell import path_argument

if TYPE_CHECKING:  # slow to import, and --help does not need it
    from sweep.config import FitConfig
    from sweep.fit import Fit, Prediction
    from sweep.store.run_store import RunStore
    from sweep.store.status import SweepStatus

PREDICTED = 10.0  # times the largest fitted budget, or as far as fit.max_reach allows


def after_fit(
    directory: Path, fits: Mapping[str | None, Fit], settings: FitConfig, *, loss: str | None = None
) -> list[str]:
    """Return the commands that follow a fit, of the losses on the evaluation set `loss` if given.

    A fit without an answer is followed by the runs that it lacks.
    """
    from sweep.report.numbers import format4
    from sweep.study.laws import VALIDATED, arm_directory, set_directory

    place = path_argument(directory)
    planned = (directory / "plans").is_dir()
    answered = {arm: fitted for arm, fitted in fits.items() if fitted.has_answer}
    if not answered:
        return [_suggestion(place, arm) for arm in fits] if planned else []
    arm, fitted = next(iter(answered.items()))
    chosen = _of_arm(arm)
    if loss is not None:
        file = set_directory(arm_directory(directory, arm), loss) / "fit.json"
        return [f"sweep predict {path_argument(file)} {reach(settings)}"]
    comparison = [f"sweep compare {place}"] if len(fits) == 2 else []
    validation = []
    if planned and fitted.flops_range is not None:
        budget = format4(float(f"{VALIDATED * fitted.flops_range[1]:.1e}"))
        validation = [f"sweep validate {place} {budget}{chosen}"]
    return [*comparison, f"sweep predict {place} {reach(settings)}{chosen}", *validation]


def reach(settings: FitConfig) -> str:
    """Return the budget to predict at, as a multiple of the largest fitted one."""
    return f"{min(PREDICTED, settings.max_reach):g}x"


def prediction_of(source: str | Path, budget: str, column: Sequence[str] | None, where: str | None) -> str:
    """Return the command that predicts at a budget, from a law or from the columns and rows of a table."""
    options = [*(f"--column {shlex.quote(one)}" for one in column or ())]
    options += [] if where is None else [f"--where {shlex.quote(where)}"]
    return " ".join(["sweep predict", path_argument(source), budget, *options])


def after_status(store: RunStore, seen: SweepStatus) -> list[str]:
    """Return the commands that follow a status: wait, continue, try failed runs again, fit, or go on."""
    directory = store.sweep_dir
    place = path_argument(directory)
    if "running" in seen.counts:
        return [f"sweep status {place} --watch"]
    if not seen.finished:
        return [_continuation(store) or f"sweep worker {place}"]
    done = any(run.status == "done" for run in seen.runs)
    failed = []
    if seen.n_failed:
        failed = [f"{_continuation(store) or 'sweep run experiment=NAME'} --only failed"]
    if not done:
        return failed
    fits = _current_fits(store)
    if fits is None:
        return [f"sweep fit {place}", *failed]
    return [*after_fit(directory, fits, store.latest_experiment().fit), *failed]


def after_prediction(
    nearer: str,
    sweep_dir: Path | None,
    fitted: Fit,
    prediction: Prediction,
    arm: str | None,
    settings: FitConfig,
) -> list[str]:
    """Return the commands that follow a prediction from a law, which may belong to a sweep.

    They train the run and its neighbours, or the runs that an answer lacks. Where the budget is too far
    beyond the data it is `nearer`, the command for the largest one allowed.
    """
    from sweep.fit import Refusal
    from sweep.report.numbers import format4
    from sweep.study.laws import MIN_VALIDATED

    place = None if sweep_dir is None else path_argument(sweep_dir)
    distance = prediction.beyond_data or 0.0
    if isinstance(prediction.answer, Refusal):
        if fitted.has_answer and distance > settings.max_reach:
            return [nearer]
        return [] if place is None else [_suggestion(place, arm)]
    if place is None or not prediction.shape or distance <= MIN_VALIDATED:
        return []
    return [f"sweep validate {place} {format4(prediction.flops)}{_of_arm(arm)}"]


def _suggestion(place: str, arm: str | None) -> str:
    return f"sweep suggest {place}{_of_arm(arm)}"


def _of_arm(arm: str | None) -> str:
    return "" if arm is None else f" --arm {shlex.quote(arm)}"


def _continuation(store: RunStore) -> str | None:
    """Return the command that trains what is left; None where the experiment is not known here by its name.

    Such an experiment was given as name=, with settings that only its plan holds.
    """
    from sweep.config.compose import experiment_names

    name = store.latest_experiment().name
    return f"sweep run experiment={name}" if name in experiment_names(None) else None


def _current_fits(store: RunStore) -> dict[str | None, Fit] | None:
    """Return the fits on disk by arm; None where one is missing, unreadable or older than a run."""
    from sweep.errors import InputError
    from sweep.fit import read_fit
    from sweep.study.laws import arm_directory, newer_points

    fits: dict[str | None, Fit] = {}
    try:
        for experiment in store.arm_experiments():
            file = arm_directory(store.sweep_dir, experiment.arm) / "fit.json"
            if not file.is_file() or newer_points(store.sweep_dir, str(file)):
                return None
            fits[experiment.arm] = read_fit(file)
    except InputError:
        return None
    return fits
