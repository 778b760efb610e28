"""The report of a sweep or a table: figures as files, and everything in one HTML file."""

from __future__ import annotations

import contextlib
import platform
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config import ColumnsConfig, ExperimentConfig, FitConfig
from sweep.credentials import redact
from sweep.errors import InputError, SafetyError, SweepError
from sweep.fit import DEFAULT_COLUMNS, Fit, Prediction, fit, read_fit, read_table
from sweep.fit.answer import AnswerLaw
from sweep.fit.table.points import ALL_ROWS, Selection
from sweep.identity import plan_hash, sha256_json
from sweep.records import Point
from sweep.shell import path_argument
from sweep.store.files import write_atomic
from sweep.store.run_store import RunStore, StoredPoints
from sweep.store.status import SweepStatus
from sweep.store.validations import read_validations
from sweep.study import laws
from sweep.study.predictions import ShapeRange, noted_run, plannable_sizes, predict

if TYPE_CHECKING:
    from sweep.fit.compare.comparison import ArmPair
    from sweep.report.html.document import StudyInput
    from sweep.report.results import SweepResults

PAGE = "report.html"
LIVE_EVERY_S = 60.0  # between two pages of a running sweep, at least
REACHES = (1.0, 10.0)  # times the largest fitted budget: the sentences of the page


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureFiles:
    """The files that figures are drawn as: suffixes, and the width they are laid out for."""

    suffixes: tuple[str, ...]
    width: str  # a key of LAYOUTS


SUFFIXES = ("png", "svg", "pdf")


def figure_files(formats: Sequence[str], width: str) -> FigureFiles:
    """Return the files for formats and a width, by default PNG and SVG. Raises InputError for others."""
    from sweep.report.figures.style import LAYOUTS

    for given, option, choices in (
        *((one, "--format", SUFFIXES) for one in formats),
        (width, "--width", LAYOUTS),
    ):
        if given not in choices:
            raise InputError(f"{option} {given} is not available: choose from {', '.join(choices)}")
    return FigureFiles(suffixes=tuple(dict.fromkeys(formats)) or ("png", "svg"), width=width)


def write_report(sweep_dir: Path, *, files: FigureFiles | None = None) -> list[Path]:
    """Write the page and the figures of a sweep, those of each arm in its directory; returns the paths.

    Raises InputError for a directory without a finished run.
    """
    files = files or figure_files((), "screen")
    stored = RunStore(sweep_dir).points()
    studies = sweep_studies(sweep_dir, stored)
    written = [_write_page(sweep_dir, stored, studies)]
    for study in studies:
        figures = laws.arm_directory(sweep_dir, study.arm) / "figures"
        written += _draw(study.results, figures, files)
    return [*written, *_draw_arms(sweep_dir, studies, files)]


def _draw_arms(sweep_dir: Path, studies: Sequence[StudyInput], files: FigureFiles) -> list[Path]:
    from sweep.report.figures.draw import draw_arms

    arms = {study.arm: study.results for study in studies if study.arm is not None}
    return draw_arms(arms, sweep_dir / "figures", suffixes=files.suffixes, width=files.width)


class LivePage:
    """The page of a sweep that is running, written again after runs have finished, but not too often."""

    def __init__(self, sweep_dir: Path, on_problem: Callable[[str], None] = lambda sentence: None) -> None:
        """Write nothing yet. `on_problem` receives a sentence about the first page that an error prevents."""
        self._sweep_dir, self._on_problem = sweep_dir, on_problem
        self._has_failed = False
        self._n_finished: int | None = None
        self._next = 0.0

    def update(self, status: SweepStatus) -> None:
        """Write the page if runs have finished since the last one; it takes at most 5 % of the time.

        Runs that cannot be fitted yet leave the page as it was. So does every other error, as the caller
        runs the sweep.
        """
        n_finished = sum(run.finished for run in status.runs)
        if self._n_finished is None:  # what was finished before has its page
            self._n_finished = n_finished
        started = time.monotonic()
        if n_finished == self._n_finished or status.finished or started < self._next:
            return
        try:
            write_page(self._sweep_dir)
        except (SweepError, OSError):  # too few runs yet, or a disk that is full or read-only
            pass
        except Exception as error:
            self._report(error)
        self._n_finished = n_finished
        self._next = started + max(LIVE_EVERY_S, 20 * (time.monotonic() - started))

    def _report(self, error: Exception) -> None:
        """Pass on the first error, with the place in the code that raised it."""
        if self._has_failed:
            return
        self._has_failed = True
        at = traceback.extract_tb(error.__traceback__)[-1]
        self._on_problem(
            redact(
                f"{self._sweep_dir / PAGE} cannot be updated ({type(error).__name__}: {error}, at "
                f"{Path(at.filename).name}:{at.lineno}): the sweep goes on, and sweep report "
                f"{self._sweep_dir} writes the page later"
            )
        )


def _draw(results: SweepResults, directory: Path, files: FigureFiles) -> list[Path]:
    """Draw the figures into a directory, and delete those of an earlier fit with the same suffixes."""
    from sweep.report.figures.draw import draw_all

    drawn = draw_all(results, directory, suffixes=files.suffixes, width=files.width)
    for suffix in files.suffixes:
        for old in set(directory.glob(f"*.{suffix}")) - set(drawn):
            old.unlink()
    return drawn


def write_page(sweep_dir: Path) -> Path:
    """Write the report of a sweep to its report.html and return the path.

    It shows the laws of fit.json; where there is none, or runs have finished since, the runs so far are
    fitted without writing that fit. Raises InputError for a directory without a finished run.
    """
    stored = RunStore(sweep_dir).points()
    return _write_page(sweep_dir, stored, sweep_studies(sweep_dir, stored))


def sweep_studies(sweep_dir: Path, stored: StoredPoints) -> list[StudyInput]:
    """Return the arms of a sweep as the page and the figures show them."""
    store = RunStore(sweep_dir)
    experiments = {one.arm: one for one in store.arm_experiments()} if store.has_plan() else {}
    status = store.status() if experiments else None
    fits = current_fits(sweep_dir, stored, _experiment(store))
    return [
        _study(sweep_dir, stored, arm, fitted, experiments.get(arm), status) for arm, fitted in fits.items()
    ]


def _write_page(sweep_dir: Path, stored: StoredPoints, studies: Sequence[StudyInput]) -> Path:
    from sweep.report.html.document import PageInput
    from sweep.report.html.page import page_html

    store = RunStore(sweep_dir)
    experiment = _experiment(store)
    page = PageInput(
        title=sweep_dir.resolve().name if experiment is None else experiment.name,
        source=str(sweep_dir),
        commands=_commands(sweep_dir, studies),
        generated_at=_now(),
        version=version("sweep"),
        studies=studies,
        comparisons=_comparisons(sweep_dir, studies),
        pending=None if experiment is None else _pending(store.status()),
        hashes=_hashes(stored.points, experiment),
        price_per_hour=0.0 if experiment is None else experiment.estimate.price_per_hour,
    )
    path = sweep_dir / PAGE
    write_atomic(path, page_html(page).encode())
    return path


def _comparisons(sweep_dir: Path, studies: Sequence[StudyInput]) -> tuple[ArmPair, ...]:
    """Return the arms compared with each other; empty for one, and where runs must not be fitted together."""
    if len(studies) < 2:
        return ()
    from sweep.study.compare import compare_arms

    with contextlib.suppress(SafetyError):
        return compare_arms(sweep_dir, studies[0].settings)
    return ()


def write_table_report(
    path: Path,
    config: FitConfig | None = None,
    *,
    columns: ColumnsConfig = DEFAULT_COLUMNS,
    selection: Selection = ALL_ROWS,
    files: FigureFiles | None = None,
) -> list[Path]:
    """Fit a table of runs and write NAME.report.html and the directory NAME.figures next to it.

    Returns the paths. Raises InputError as `read_table`, and for a table of optima, which has no runs.
    """
    from sweep.report.html.document import PageInput, StudyInput
    from sweep.report.html.page import page_html
    from sweep.report.results import SweepResults

    if not path.exists():
        raise laws.not_found(path)
    config, table = config or FitConfig(), read_table(path, columns, selection)
    if table.is_optima:
        raise InputError(
            f"{path} holds optima, not runs, and has nothing to report: use sweep fit {path_argument(path)}"
        )
    results = SweepResults(fit=fit(table, config), points=table)
    study = StudyInput(
        arm=None, results=results, settings=config, predictions=_predictions(results.fit, None, (), config)
    )
    page = PageInput(
        title=path.stem,
        source=str(path),
        commands=(f"sweep report {path_argument(path)}",),
        generated_at=_now(),
        version=version("sweep"),
        studies=[study],
        hashes=_hashes(table, None),
    )
    written = path.with_name(f"{path.stem}.{PAGE}")
    write_atomic(written, page_html(page).encode())
    files = files or figure_files((), "screen")
    return [written, *_draw(results, path.with_name(f"{path.stem}.figures"), files)]


def current_fits(
    sweep_dir: Path, stored: StoredPoints, experiment: ExperimentConfig | None
) -> dict[str | None, Fit]:
    """Return the fit of each arm: that of its fit.json, or a new one if that does not know all runs."""
    found: dict[str | None, Fit] = {}
    for arm in dict.fromkeys(point.arm for point in stored.points):
        path = laws.arm_directory(sweep_dir, arm) / "fit.json"
        n_points = sum(point.arm == arm for point in stored.points)
        if path.is_file():
            fitted = read_fit(path)
            if fitted.n_points + len(fitted.excluded) == n_points:
                found[arm] = fitted
                continue
        return laws.fit_arms(sweep_dir, FitConfig() if experiment is None else experiment.fit)
    return found or laws.fit_arms(sweep_dir, FitConfig())  # raises: there is no finished run


def _study(
    sweep_dir: Path,
    stored: StoredPoints,
    arm: str | None,
    fitted: Fit,
    experiment: ExperimentConfig | None,
    status: SweepStatus | None,
) -> StudyInput:
    from sweep.report.html.document import StudyInput

    results = arm_results(sweep_dir, stored, arm, fitted)
    points = results.points
    settings = FitConfig() if experiment is None else experiment.fit
    is_exact = experiment is not None and fitted.constraint == "exact"
    return StudyInput(
        arm=arm,
        results=results,
        settings=settings,
        predictions=_predictions(fitted, experiment, points, settings),
        experiment=experiment,
        family=plannable_sizes(experiment) if experiment is not None and is_exact else None,
        run_at=None if experiment is None else partial(noted_run, experiment, ShapeRange.of(points)),
        ledger=_ledger(status, {point.run_key for point in points}),
    )


def arm_results(sweep_dir: Path, stored: StoredPoints, arm: str | None, fitted: Fit) -> SweepResults:
    """Return what the figures of an arm are drawn from."""
    from sweep.report.results import SweepResults

    return SweepResults(
        fit=fitted,
        points=[point for point in stored.points if point.arm == arm],
        curves=stored.curves,
        validations=[one for one in read_validations(sweep_dir) if one.registration.arm == arm],
        hparams=next((report for report in laws.read_hparams(sweep_dir) if report.arm == arm), None),
    )


def _predictions(
    fitted: Fit, experiment: ExperimentConfig | None, points: Sequence[Point], settings: FitConfig
) -> tuple[Prediction, ...]:
    """Return the predictions at the largest budget and beyond; empty without an answer."""
    if not isinstance(fitted.answer, AnswerLaw):
        return ()
    budgets = [
        float(f"{fitted.answer.flops_max * reach:.3g}") for reach in REACHES if reach <= settings.max_reach
    ]
    return predict(fitted, budgets, family=experiment, trained=points, settings=settings)


def _ledger(status: SweepStatus | None, keys: set[str | None]) -> dict[str, float]:
    """Return the seconds by activity of the runs `keys`."""
    total: dict[str, float] = {}
    for run in status.runs if status is not None else ():
        for activity, seconds in (run.ledger or {}).items() if run.run_key in keys else ():
            total[activity] = total.get(activity, 0.0) + seconds
    return total


def _pending(status: SweepStatus) -> tuple[int, int] | None:
    """Return the numbers of finished and of all runs while some are left."""
    n_finished = sum(run.finished for run in status.runs)
    return None if n_finished == len(status.runs) else (n_finished, len(status.runs))


def _experiment(store: RunStore) -> ExperimentConfig | None:
    """Return the experiment of a sweep; None for imported points."""
    return store.latest_experiment() if store.has_plan() else None


def _commands(sweep_dir: Path, studies: Sequence[StudyInput]) -> tuple[str, ...]:
    """Return the commands that train the experiments again, from the files on the page, and report them."""
    from sweep.report.html.experiment import experiment_file

    files = [experiment_file(study.experiment) for study in studies if study.experiment is not None]
    trained = [
        line
        for file in files
        for line in (
            f"# with the settings below as configs/experiment/{file.name}.yaml",
            f"sweep run experiment={file.name}",
        )
    ]
    place = path_argument(sweep_dir)
    return (*trained, *(() if files else (f"sweep fit {place}",)), f"sweep report {place}")


def _hashes(points: Sequence[Point], experiment: ExperimentConfig | None) -> dict[str, str]:
    """Return what identifies the runs: hashes of plan, points and data, and the versions of the code."""
    found = {} if experiment is None else {"plan": plan_hash(experiment)}
    losses = sorted([str(point.run_key or point.name or ""), point.loss or 0.0] for point in points)
    found["points"] = sha256_json(losses)
    for name in ("corpus_sha256", "tokenizer_sha256", "evaluation_sha256", "code_version", "torch_version"):
        values = sorted({str(value) for point in points if (value := getattr(point, name))})
        if values:
            found[name.replace("_sha256", "").replace("_", " ")] = ", ".join(values)
    return {**found, "Python": platform.python_version()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
