"""Fitting, drawing and predicting from a sweep or a table, as typed functions: the API of a notebook too.

fitted = fit_sweep(Path("results/demo"), experiment.fit)
report(Path("results/demo"))
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep import flops
from sweep.config import ExperimentConfig, FitConfig
from sweep.data.tokenizers.tokenizers import vocab_size
from sweep.errors import InputError, SafetyError
from sweep.fit import Fit, Prediction, Question, fit, published_fit, read_fit, read_table
from sweep.fit import predict as predict_at
from sweep.fit.table.observations import ExcludedPoint
from sweep.forks import run_forked
from sweep.plan import rules
from sweep.plan.grid import tokens_of_budget
from sweep.plan.hparam_check import HparamCheck
from sweep.plan.shapes import nearest_shape, shape_of_width, width_step
from sweep.records import Point
from sweep.report.hparam_summary import HPARAMS, hyperparameters
from sweep.report.hparams import HparamReport, document, measure, read_reports
from sweep.store.files import read_json
from sweep.store.files import replace as replace_file
from sweep.store.run_store import RunStore, StoredPoints

SETTING_COLUMNS = (
    "lr_peak batch_tokens n_tokens warmup_steps schedule optimizer weight_decay beta2 parametrization "
    "precision seq_len corpus_sha256 tokenizer_sha256 evaluation_sha256 vocab_size n_heads n_kv_heads "
    "d_ff n_params"
).split()
"""What tells two points of one cell apart, in the words of points.csv."""

WORTH_A_FORK = 6  # points of an arm: fewer are refused by every method that takes time
MAX_DOUBLINGS = 14  # of the width, over which sizes past those trained are known


def fit_sweep(
    sweep_dir: Path, config: FitConfig, *, reconcile: bool = False, n_processes: int = 1
) -> dict[str | None, Fit]:
    """Fit a sweep's points, as `fit_arms` does, and write what `write_fits` does."""
    fits = fit_arms(sweep_dir, config, reconcile=reconcile, n_processes=n_processes)
    write_fits(sweep_dir, fits)
    return fits


def fit_arms(
    sweep_dir: Path, config: FitConfig, *, reconcile: bool = False, n_processes: int = 1
) -> dict[str | None, Fit]:
    """Fit a sweep's points, each arm by itself; writes nothing.

    The only key is None where there are no arms. With several processes arms are fitted side by side (see
    `run_forked`). Raises InputError when no run has finished, SafetyError when runs of several settings would
    be fitted together.
    """
    store = RunStore(sweep_dir)
    stored = store.points()
    if not stored.points:
        raise InputError(f"{sweep_dir} holds no finished run to fit: start it with sweep run")
    _check_settings(stored)
    n_points = Counter(point.arm for point in stored.points)
    if max(n_points.values()) < WORTH_A_FORK:
        n_processes = 1
    fits: dict[str | None, Fit] = {}
    jobs = [partial(_fit_arm, stored, arm, config, reconcile) for arm in n_points]
    for arm, fitted in zip(n_points, run_forked(jobs, n_processes), strict=True):
        known = hyperparameters(sweep_dir, arm, ((point.name, point.run_key) for point in stored.points))
        fits[arm] = replace(fitted, hyperparameters=known)
    return fits


def write_fits(sweep_dir: Path, fits: Mapping[str | None, Fit]) -> list[Path]:
    """Write the points' tables, and a fit.json for each arm in its `arm_directory`; returns the files.

    Raises OSError where the sweep may only be read, or its disk is full.
    """
    laws = {arm_directory(sweep_dir, arm) / "fit.json": fitted for arm, fitted in fits.items()}
    tables = RunStore(sweep_dir).write_points()
    for path, fitted in laws.items():
        write_fit(path, fitted)
    return [*tables, *laws]


def arm_directory(sweep_dir: Path, arm: str | None) -> Path:
    """Where the fit and the figures of an arm lie: the sweep's own directory where there are no arms."""
    return sweep_dir if arm is None else sweep_dir / "arms" / re.sub(r"[^\w.,=+-]", "_", arm)


def _fit_arm(stored: StoredPoints, arm: str | None, config: FitConfig, reconcile: bool) -> Fit:
    points = [point for point in stored.points if point.arm == arm]
    left_out = {item.run_key: item.reason for item in stored.excluded}
    others = {point.run_key for point in stored.points if point.arm != arm}
    fitted = fit(points, config, excluded=left_out, curves=stored.curves, reconcile=reconcile)
    lost = left_out.keys() - {point.run_key for point in points} - others  # results that cannot be read
    unreadable = (ExcludedPoint(run_key=key, reason=left_out[key]) for key in sorted(lost))
    return replace(fitted, excluded=(*fitted.excluded, *unreadable))


def _check_settings(stored: StoredPoints) -> None:
    """Raises SafetyError when one cell and seed was trained twice, under settings that differ.

    Such runs are neither replicates nor one experiment: fitted together they would bend its curves.
    """
    left_out = {item.run_key for item in stored.excluded}
    first: dict[str | None, Point] = {}
    for point in stored.points:
        if point.run_key in left_out:
            continue
        other = first.setdefault(point.name, point)
        if other is not point:
            differing = [n for n in SETTING_COLUMNS if getattr(other, n) != getattr(point, n)]
            raise SafetyError(
                f"{point.name} was trained twice, as {other.run_key} and {point.run_key}, which differ in "
                f"{', '.join(differing) or 'their config.json'}: give variants a name= of their own, or "
                f"sweep exclude one"
            )


def fit_table(experiment: ExperimentConfig) -> Fit:
    """Fit the table `experiment.points`. Writes nothing. Raises InputError when it is unusable."""
    if experiment.points is None:
        raise InputError("points is not given: name a table with points=FILE.csv")
    points = read_table(Path(experiment.points), experiment.columns)
    return fit(points, experiment.fit, reconcile=experiment.reconcile)


def read_law(experiment: ExperimentConfig, sweep_dir: Path) -> Fit:
    """The fit to predict from: `law`, a fit.json or a published law's name, else the sweep's own.

    Raises InputError when there is none, naming the published laws.
    """
    law = experiment.law
    if law is None:
        return read_fit(fit_file(sweep_dir))
    return read_fit(law) if Path(law).exists() or Path(law).suffix else published_fit(law)


def fit_file(sweep_dir: Path) -> Path:
    """A sweep's fit.json. Raises InputError when it was not fitted yet."""
    path = sweep_dir / "fit.json"
    if not path.is_file():
        raise InputError(f"{sweep_dir} has no fit yet: make one with sweep fit {sweep_dir}")
    return path


def write_fit(path: Path, fitted: Fit) -> None:
    """Write a fit.json, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(fitted.to_json(), indent=1, allow_nan=False) + "\n").encode())


def report(sweep_dir: Path, n_processes: int = 1) -> list[Path]:
    """Draw the figures of a sweep, of each arm by itself, from its points and its fit; returns the files.

    With several processes figures are drawn side by side (see `run_forked`). Raises InputError when there is
    no fit yet.
    """
    stored = RunStore(sweep_dir).points()
    arms = dict.fromkeys(point.arm for point in stored.points) or {None: None}
    jobs = [job for arm in arms for job in _drawing_jobs(sweep_dir, stored, arm)]
    drawn = [path for paths in run_forked(jobs, n_processes) for path in paths]
    for arm in arms:
        figures = arm_directory(sweep_dir, arm) / "figures"
        for old in {*figures.glob("*.png"), *figures.glob("*.svg")} - set(drawn):
            old.unlink()  # of an earlier fit, which this one does not bear out
    return drawn


def _drawing_jobs(sweep_dir: Path, stored: StoredPoints, arm: str | None) -> list[Callable[[], list[Path]]]:
    from sweep.report.figures.draw import drawing_jobs  # matplotlib is slow to import
    from sweep.report.figures.results import SweepResults

    directory = arm_directory(sweep_dir, arm)
    fitted = read_fit(fit_file(directory))
    points = [point for point in stored.points if point.arm == arm]
    hparams = next((report for report in read_hparams(sweep_dir) if report.arm == arm), None)
    results = SweepResults(fit=fitted, points=points, curves=stored.curves, hparams=hparams)
    return drawing_jobs(results, directory / "figures")


def measure_hparams(checks: Sequence[HparamCheck], sweep_dir: Path, check_dir: Path) -> list[HparamReport]:
    """What the runs of a sweep's hyperparameter check say; writes hparams.json and draws figures/hparams.png.

    `check_dir` holds the check's own runs; those that the grid has too are read from the sweep. Settings
    without a result leave their corner incomplete.
    """
    from sweep.report.figures.draw import draw_hparams  # matplotlib is slow to import

    points = [*RunStore(sweep_dir).points().points, *RunStore(check_dir).points().points]
    losses = {str(point.run_key): point.loss for point in points}
    reports = [measure(check, losses) for check in checks]
    content = json.dumps(document(reports), indent=1, allow_nan=False) + "\n"
    replace_file(sweep_dir / HPARAMS, content.encode())
    for report in reports:
        draw_hparams(report, arm_directory(sweep_dir, report.arm) / "figures")
    return reports


def read_hparams(sweep_dir: Path) -> tuple[HparamReport, ...]:
    """The sweep's hyperparameter check, one report an arm; none where there was no check."""
    path = sweep_dir / HPARAMS
    return read_reports(read_json(path) or {}) if path.exists() else ()


def predict(experiment: ExperimentConfig, fitted: Fit, *, is_own: bool) -> tuple[Prediction, ...]:
    """What every method of a fit says at `experiment.flops`.

    `is_own` says that the fit is of the experiment's family of decoders: then sizes beyond those trained
    follow the plan's shapes, and the concrete run is told too. Raises InputError when no budget is given.
    """
    if experiment.flops is None:
        raise InputError("flops is not given: name the budget, as in flops=1e21 or flops=[1e20,1e21]")
    budgets = experiment.flops if isinstance(experiment.flops, tuple) else (experiment.flops,)
    return tuple(_predict_at(experiment, fitted, budget, is_own) for budget in budgets)


def _predict_at(experiment: ExperimentConfig, fitted: Fit, budget: float, is_own: bool) -> Prediction:
    at_budget = None if experiment.inference_tokens else budget  # serving moves the training budget
    question = Question(
        shape=(lambda n, d: concrete_run(experiment, n, d, at_budget)) if is_own else None,
        family=_plannable_sizes(experiment) if is_own and fitted.constraint == "exact" else None,
        max_interval_factor=experiment.fit.max_interval_factor,
        inference_tokens=experiment.inference_tokens,
    )
    return predict_at(fitted, (budget,), question)[0]


def _plannable_sizes(
    experiment: ExperimentConfig,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """N and exact FLOPs per token of decoders of the experiment's family, over all sizes it could plan."""
    architecture, n_vocab = experiment.model, vocab_size(experiment.tokenizer)
    step = width_step(architecture)
    multiples = sorted({round(2 ** (exponent / 4)) for exponent in range(MAX_DOUBLINGS * 4)})
    shapes = [shape_of_width(multiple * step, architecture, n_vocab) for multiple in multiples]
    sizes = {flops.n_params(shape).total: flops.flops_per_token(shape) for shape in shapes}
    return np.array(list(sizes), dtype=float), np.array(list(sizes.values()), dtype=float)


def concrete_run(
    experiment: ExperimentConfig, n_params: float, n_tokens: float, budget: float | None
) -> Mapping[str, Any]:
    """The run nearest to N, in the experiment's family and by its own rules.

    Its tokens are what `budget` pays for at that shape, as in a plan; without one, D in whole batches.
    """
    n_vocab = vocab_size(experiment.tokenizer)
    model = nearest_shape(lambda m: flops.n_params(m).total, n_params, experiment.model, n_vocab)
    cell = tokens_of_budget(experiment, model, budget or n_tokens * flops.flops_per_token(model))
    return {
        "d_model": model.d_model,
        "n_layers": model.n_layers,
        "n_heads": model.n_heads,
        "n_params": flops.n_params(model).total,
        "n_tokens": cell.n_tokens,
        "flops": flops.count(model, cell.n_tokens).flops,
        "batch_tokens": cell.batch_tokens,
        "n_steps": cell.n_steps,
        "lr_peak": rules.lr_peak(experiment.optimizer, cell),
    }
