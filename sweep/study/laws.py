"""The laws of a sweep, from its points to its files, and those that are read from a file or by name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sweep.config import FitConfig
from sweep.errors import InputError, SafetyError
from sweep.fit import Fit, fit, published_fit, read_fit
from sweep.fit.laws.catalogue import CATALOGUE
from sweep.fit.table.files import is_known_table
from sweep.fit.table.observations import ExcludedPoint
from sweep.plan.hparam_check import HparamCheck
from sweep.records import Point
from sweep.report.hparam_summary import HPARAMS, hyperparameters
from sweep.report.hparams import HparamReport, document, measure, read_reports
from sweep.shell import path_argument
from sweep.store.families import outside_of_plan
from sweep.store.files import read_json, write_atomic
from sweep.store.plans import MAX_OFFERED, no_plan, offer_sweeps, sweeps_in
from sweep.store.run_store import Exclusion, RunStore, StoredPoints

SETTING_COLUMNS = (
    "lr_peak batch_tokens n_tokens warmup_steps schedule optimizer weight_decay beta2 parametrization "
    "precision seq_len corpus_sha256 tokenizer_sha256 evaluation_sha256 vocab_size n_heads n_kv_heads "
    "d_ff n_params"
).split()
"""Columns of points.csv in which two runs of one cell and seed can differ."""

VALIDATED = 4.0  # times the largest budget: the validation that is proposed
MIN_VALIDATED = 1.1  # times the largest fitted budget: nearer to it there is nothing to validate
NICKNAMES = {"chinchilla": ("hoffmann_2022", "besiroglu_2024"), "llama": ("llama_3",)}
"""Names that people use for a paper, and the start of its names here."""


def choose_arm(fits: Mapping[str | None, Fit], arm: str | None) -> Fit:
    """Return the fit of an arm. Raises InputError for an unknown one."""
    _check_arm(fits, arm)
    return fits[arm]


def _check_arm(arms: Iterable[str | None], arm: str | None) -> None:
    known = tuple(arms)
    if arm not in known:
        names = ", ".join(str(name) for name in known if name is not None)
        raise InputError(
            f"unknown arm {arm}: choose from {names}"
            if names
            else f"unknown arm {arm}: the sweep has no arms"
        )


def fit_sweep(sweep_dir: Path, config: FitConfig, *, reconcile: bool = False) -> dict[str | None, Fit]:
    """Fit a sweep's points as `fit_arms` does, and write the files of `write_fits`."""
    fits = fit_arms(sweep_dir, config, reconcile=reconcile)
    write_fits(sweep_dir, fits)
    return fits


def fit_arms(
    sweep_dir: Path,
    config: FitConfig,
    *,
    reconcile: bool = False,
    plan: str | None = None,
    loss: str | None = None,
) -> dict[str | None, Fit]:
    """Fit each arm of a sweep separately and return the fits by arm; the only key is None without arms.

    An arm's runs are those of the plan with the hash `plan`, or of its latest plan, and of every plan with
    the same settings; the points of other plans are excluded, with the reason. With `loss`, the name of an
    evaluation set, the losses on that set are fitted.

    Writes nothing. Raises as `points_to_fit`.
    """
    stored = points_to_fit(sweep_dir, plan)
    if loss is not None:
        stored = _on_set(stored, loss, sweep_dir)
    return {arm: _fit_arm(sweep_dir, stored, arm, config, reconcile) for arm in _arms(stored)}


def fit_arm(sweep_dir: Path, config: FitConfig, arm: str | None) -> Fit:
    """Fit one arm of a sweep as `fit_arms` does. Raises InputError for an unknown one."""
    stored = points_to_fit(sweep_dir)
    _check_arm(_arms(stored), arm)
    return _fit_arm(sweep_dir, stored, arm, config, reconcile=False)


def _arms(stored: StoredPoints) -> tuple[str | None, ...]:
    return tuple(dict.fromkeys(point.arm for point in stored.points))


def points_to_fit(sweep_dir: Path, plan: str | None = None) -> StoredPoints:
    """Return the points of a sweep, with those outside of the plan to fit among the excluded.

    Raises InputError when no run has finished or the plan is unknown, and SafetyError when runs of unknown
    plans with different settings would be fitted together.
    """
    store = RunStore(sweep_dir)
    stored = store.points()
    outside, known = outside_of_plan(store, plan), {item.run_key for item in stored.excluded}
    others = [point.run_key for point in stored.points if point.run_key in outside.keys() - known]
    exclusions = [Exclusion(run_key=key, reason=outside[key]) for key in others if key is not None]
    if not stored.points:
        if not store.has_plan():
            raise no_plan(sweep_dir)
        place = path_argument(sweep_dir)
        raise InputError(f"{sweep_dir} has no finished run to fit: see its runs with sweep status {place}")
    found = replace(stored, excluded=(*stored.excluded, *exclusions))
    _check_settings(found)
    return found


def _on_set(stored: StoredPoints, name: str, sweep_dir: Path) -> StoredPoints:
    """Return the points with their losses on an evaluation set; those without one are excluded.

    Raises InputError where no point has a loss on it, with the names of those that have one.
    """
    names = sorted({score.name for point in stored.points for score in point.sets})
    if name not in names:
        choices = f"choose from {', '.join(names)}" if names else "it has no evaluation sets"
        raise InputError(f"unknown loss {name} of {sweep_dir}: {choices}")
    excluded = list(stored.excluded)
    points = []
    for point in stored.points:
        score = next((score for score in point.sets if score.name == name), None)
        if score is not None:
            point = replace(
                point,
                loss=score.loss,
                loss_stderr=score.loss_stderr,
                bits_per_byte=score.bits_per_byte,
                evaluation_sha256=score.evaluation_sha256,
            )
        elif point.status == "done":
            excluded.append(Exclusion(run_key=str(point.run_key), reason=f"no loss_{name}"))
        points.append(point)
    return replace(stored, points=tuple(points), excluded=tuple(excluded))


def set_directory(directory: Path, loss: str | None) -> Path:
    """Return the directory of a fit of the losses on an evaluation set, below that of the main fit."""
    return directory if loss is None else directory / "losses" / loss


def write_fits(sweep_dir: Path, fits: Mapping[str | None, Fit], *, loss: str | None = None) -> list[Path]:
    """Write the tables of points, and fit.json in each `arm_directory`; returns the files.

    A fit of the losses on an evaluation set is written to `set_directory` below it.

    Raises OSError where the sweep is read-only or its disk is full.
    """
    laws = {
        set_directory(arm_directory(sweep_dir, arm), loss) / "fit.json": fitted
        for arm, fitted in fits.items()
    }
    tables = RunStore(sweep_dir).write_points()
    for path, fitted in laws.items():
        write_fit(path, fitted)
    return [*tables, *laws]


def arm_directory(sweep_dir: Path, arm: str | None) -> Path:
    """Return the directory of an arm's fit and figures: the sweep's own for arm None."""
    return sweep_dir if arm is None else sweep_dir / "arms" / re.sub(r"[^\w.,=+-]", "_", arm)


def _fit_arm(
    sweep_dir: Path, stored: StoredPoints, arm: str | None, config: FitConfig, reconcile: bool
) -> Fit:
    points = [point for point in stored.points if point.arm == arm]
    left_out = {item.run_key: item.reason for item in stored.excluded}
    others = {point.run_key for point in stored.points if point.arm != arm}
    fitted = fit(points, config, excluded=left_out, curves=stored.curves, reconcile=reconcile)
    lost = left_out.keys() - {point.run_key for point in points} - others  # results that cannot be read
    unreadable = (ExcludedPoint(run_key=key, reason=left_out[key]) for key in sorted(lost))
    return replace(
        fitted,
        excluded=(*fitted.excluded, *unreadable),
        hyperparameters=hyperparameters(sweep_dir, arm, ((p.name, p.run_key) for p in stored.points)),
    )


def _check_settings(stored: StoredPoints) -> None:
    """Raise SafetyError when one cell and seed was trained twice under different settings.

    Such runs are neither replicates nor one experiment, and would bias the fit.
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
                f"exclude one with sweep exclude"
            )


def read_law(source: str) -> Fit:
    """Return the fit in a sweep's directory, in a fit.json, or of a published law.

    Raises InputError when there is none, with the names of the published laws.
    """
    path = Path(source)
    if path.is_dir():
        return read_fit(fit_file(path))
    if path.exists():
        return read_fit(path)
    if source in CATALOGUE:
        return published_fit(source)
    if path.suffix or "/" in source:
        raise not_found(source, "give a sweep's directory, a fit.json or a published law", "fit.json")
    near = [name for name in CATALOGUE if name.startswith(NICKNAMES.get(source.lower(), (source.lower(),)))]
    if near:
        raise InputError(
            f"{source} is not the name of one law: choose from {', '.join(near)}; see sweep laws"
        )
    sweep_dir = Path("results") / source
    meant = f"did you mean {sweep_dir}? Or " if sweep_dir in sweeps_in(Path("results")) else ""
    raise InputError(
        f"{source} is not a file, a directory or a published law: {meant}choose from {', '.join(CATALOGUE)}"
    )


def not_found(
    source: str | Path, otherwise: str = "give a sweep's directory, or a .csv or .parquet file", *marks: str
) -> InputError:
    """Return the error for a path of a sweep, law or table that does not exist, with those near it.

    Directories with one of the files `marks` count as sweeps.
    """
    path = Path(source)
    if path.suffix and is_known_table(path):
        tables = sorted(map(str, path.parent.glob(f"*{path.suffix}")))[:MAX_OFFERED]
        remedy = f"give one of {', '.join(tables)}" if tables else otherwise
        return InputError(f"{source} not found: {remedy}")
    return InputError(f"{source} not found: {offer_sweeps(path, otherwise, *marks)}")


def law_table() -> list[dict[str, Any]]:
    """Return the published laws: name, source, convention, range of their runs in FLOPs, and exponents."""
    rows = []
    for name, law in CATALOGUE.items():
        a, b = published_fit(name).laws[name].exponents
        rows.append(
            {
                "name": name,
                "source": law.source,
                "convention": law.convention,
                "flops_range": list(law.flops_range),
                "a": a,
                "b": b,
            }
        )
    return rows


def sweep_of_law(source: str) -> Path | None:
    """Return the sweep that a directory or fit.json belongs to; None for one from elsewhere."""
    path = Path(source).absolute()
    above = [path, *path.parents][:6]  # DIR/arms/ARM/losses/NAME/fit.json
    found = next((path for path in above if (path / "plans").is_dir()), None)
    return found.relative_to(Path.cwd()) if found and found.is_relative_to(Path.cwd()) else found


def trained_points(sweep_dir: Path) -> tuple[Point, ...]:
    """Return every point of a sweep."""
    return RunStore(sweep_dir).points().points


def arm_names(sweep_dir: Path) -> tuple[str, ...]:
    """Return the names of a sweep's arms with finished runs; empty for a sweep without arms."""
    points = RunStore(sweep_dir).points().points
    return tuple(dict.fromkeys(point.arm for point in points if point.arm is not None))


def newer_points(sweep_dir: Path, source: str | None) -> int:
    """Return the number of runs that finished after the fit in `source`, or in the sweep, was written."""
    path = sweep_dir if source is None else Path(source)
    file = path / "fit.json" if path.is_dir() else path
    written = file.stat().st_mtime if file.is_file() else math.inf
    return sum(
        datetime.fromisoformat(point.finished_at).timestamp() > written
        for point in trained_points(sweep_dir)
        if point.finished_at is not None and point.purpose is None
    )


def fit_file(sweep_dir: Path) -> Path:
    """Return the path of a directory's fit.json. Raises InputError when there is none."""
    path = sweep_dir / "fit.json"
    if path.is_file():
        return path
    store = RunStore(sweep_dir)
    if not store.has_plan():
        raise no_plan(sweep_dir)
    if not store.points().points:
        raise InputError(f"{sweep_dir} has no fit.json yet, and no finished run: train with sweep run first")
    raise InputError(f"{sweep_dir} has no fit.json yet: write it with sweep fit {path_argument(sweep_dir)}")


def write_fit(path: Path, fitted: Fit) -> None:
    """Write a fit.json atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(fitted.to_json(), indent=1, allow_nan=False) + "\n").encode())


def measure_hparams(checks: Sequence[HparamCheck], sweep_dir: Path, check_dir: Path) -> list[HparamReport]:
    """Evaluate the runs of a hyperparameter check; writes hparams.json and draws figures/hparams.png.

    Runs that are also part of the grid are read from the sweep, the others from `check_dir`. Settings
    without a result leave their corner incomplete.
    """
    from sweep.report.figures.draw import draw_hparams  # matplotlib is slow to import

    points = [*RunStore(sweep_dir).points().points, *RunStore(check_dir).points().points]
    losses = {str(point.run_key): point.loss for point in points}
    reports = [measure(check, losses) for check in checks]
    content = json.dumps(document(reports), indent=1, allow_nan=False) + "\n"
    write_atomic(sweep_dir / HPARAMS, content.encode())
    for report in reports:
        draw_hparams(report, arm_directory(sweep_dir, report.arm) / "figures")
    return reports


def read_hparams(sweep_dir: Path) -> tuple[HparamReport, ...]:
    """Return the sweep's hyperparameter check, one report an arm; empty without a check."""
    path = sweep_dir / HPARAMS
    return read_reports(read_json(path) or {}) if path.exists() else ()
