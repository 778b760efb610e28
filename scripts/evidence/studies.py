"""Reference sweeps: their tables of points, fits, registered predictions and scores."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sweep.config import FilterConfig, FitConfig
from sweep.fit import Fit, Table, fit, read_table
from sweep.identity import sha256_json
from sweep.records import Point
from sweep.report.figures.draw import FIGURES
from sweep.report.results import SweepResults
from sweep.store.validations import Validation, read_registrations, read_validations
from sweep.study.laws import arm_directory, read_hparams
from sweep.study.scores import score

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
TOLERANCE = 1e-6  # relative, of every number in a fit.json
TINY = 1e-12  # absolute difference that is always equal
VALIDATION = "run of a registered validation"
SCORED = ("loss", "n_params", "n_tokens", "loss_error", "loss_inside", "n_params_opt", "n_params_opt_inside")
DRAWN = ("isoflop_curves", "optima", "validations", "hparams")


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A directory of results/reference with a points.csv."""

    name: str
    config: FitConfig | None  # None: too few sizes at each budget for a law
    figures: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """Directory of the study."""
        return REFERENCE / self.name

    def with_config(self, **changes: Any) -> Study:
        """Return the study with other settings of the fit."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config or FitConfig(), **changes))


FEW_DRAWS = FitConfig(confidence=0.9, n_bootstrap=300, methods=("isoflop", "parametric"))
REPEATED = FitConfig(
    n_bootstrap=0, methods=("data_constrained",), filters=FilterConfig(max_epochs=6.0)
)  # the law cannot rise, as losses do after more epochs
STUDIES = {
    study.name: study
    for study in (
        Study(name="demo", config=FitConfig(), figures=DRAWN),
        Study(name="cpu_stdlib", config=FitConfig(confidence=0.9), figures=DRAWN),
        Study(name="demo_third_seed", config=None),
        Study(name="third_seed", config=None),
        Study(name="known_entropy", config=FitConfig(confidence=0.9, methods=("isoflop", "parametric"))),
        Study(name="cooldown", config=FEW_DRAWS),
        Study(name="muon", config=FEW_DRAWS),
        Study(name="depths", config=FEW_DRAWS),
        Study(name="fixed_lr", config=FEW_DRAWS),
        Study(name="one_schedule", config=None),
        Study(name="batches", config=None),
        Study(name="repetition", config=REPEATED),
    )
}
"""Reference sweeps by name. The confidence of the demo is that of its experiment."""


def present() -> list[Study]:
    """Return the studies with a table of points."""
    return [study for study in STUDIES.values() if (study.directory / "points.csv").exists()]


def table(study: Study) -> Table:
    """Return the points of a study."""
    return read_table(study.directory / "points.csv")


def arms(points: Table) -> dict[str | None, list[int]]:
    """Return the positions of each arm's points; the only key is None without arms."""
    found: dict[str | None, list[int]] = {}
    for position, point in enumerate(points):
        found.setdefault(point.arm, []).append(position)
    return found


def arm_points(study: Study) -> dict[str | None, list[tuple[Point, dict[str, Any]]]]:
    """Return the points of each arm with the other columns of their rows."""
    points = table(study)
    return {
        arm: [(points[position], _extras(points, position)) for position in positions]
        for arm, positions in arms(points).items()
    }


def _extras(points: Table, position: int) -> dict[str, Any]:
    return {name: column[position] for name, column in points.extras.items()}


def grid_points(study: Study) -> list[Point]:
    """Return the points of a study without arms, without the runs of its validations."""
    tested = validation_keys(study)
    return [point for point in table(study).points if point.run_key not in tested]


def replicate_sd(points: Sequence[Point]) -> float:
    """Return the standard deviation of ln L between seeds, pooled over the cells of a grid."""
    cells: dict[tuple[float | None, float | None], list[float]] = {}
    for point in points:
        if point.loss is not None:
            cells.setdefault((point.flops_budget, point.n_params), []).append(math.log(point.loss))
    groups = [logs for logs in cells.values() if len(logs) > 1]
    return math.sqrt(statistics.fmean(statistics.variance(logs) for logs in groups))


def validation_keys(study: Study) -> set[str]:
    """Return the keys of the runs that tested a registered prediction, which fits leave out."""
    return {run.run_key for one in read_registrations(study.directory) for run in one.runs}


def refit(study: Study) -> dict[str | None, Fit]:
    """Fit every arm of a study without the runs of its validations; empty for a study without a law."""
    if study.config is None:
        return {}
    points = table(study)
    tested = validation_keys(study)
    return {
        arm: fit(
            [points[position] for position in positions if points[position].run_key not in tested],
            study.config,
        )
        for arm, positions in arms(points).items()
    }


@cache
def fits_of(study: Study) -> dict[str | None, Fit]:
    """Return the fit of every arm, computed once."""
    return refit(study)


def fitted(study: Study, arm: str | None = None) -> Fit:
    """Return the fit of an arm."""
    return fits_of(study)[arm]


def fit_path(study: Study, arm: str | None) -> Path:
    """Return the path of the stored fit of an arm."""
    return arm_directory(study.directory, arm) / "fit.json"


def store(study: Study, fits: Mapping[str | None, Fit]) -> None:
    """Write the fit of every arm without its bootstrap draws, which are most of its size."""
    for arm, fitted in fits.items():
        path = fit_path(study, arm)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_without_draws(fitted.to_json()), indent=1, allow_nan=False) + "\n")


def _without_draws(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_draws(item) for key, item in value.items() if key != "bootstrap"}
    return [_without_draws(item) for item in value] if isinstance(value, (list, tuple)) else value


def differences(study: Study, fits: Mapping[str | None, Fit]) -> Iterator[str]:
    """Yield a sentence for every stored number that a new fit does not repeat to `TOLERANCE`."""
    for arm, fitted in fits.items():
        path = fit_path(study, arm)
        if not path.exists():
            yield f"{path.relative_to(REFERENCE)} not found"
            continue
        stored, new = json.loads(path.read_text()), json.loads(json.dumps(fitted.to_json()))
        found = list(unequal(stored, new))
        if found:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            yield f"{path.relative_to(REFERENCE)} differs from a new fit at {found[0]}{more}"


def unequal(stored: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every value in which two JSON documents differ, bootstrap draws aside."""
    if isinstance(stored, Mapping) and isinstance(new, Mapping):
        for key in sorted({*stored, *new} - {"bootstrap"}):
            if key in stored and key in new:
                yield from unequal(stored[key], new[key], f"{path}.{key}" if path else key)
            else:
                yield f"{path}.{key}" if path else key
    elif isinstance(stored, list) and isinstance(new, list) and len(stored) == len(new):
        for index, (one, other) in enumerate(zip(stored, new, strict=True)):
            yield from unequal(one, other, f"{path}[{index}]")
    elif _is_number(stored) and _is_number(new):
        if not math.isclose(stored, new, rel_tol=TOLERANCE, abs_tol=TINY):
            yield path
    elif stored != new:
        yield path


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def validations(study: Study) -> tuple[Validation, ...]:
    """Return the scored predictions of a study by budget."""
    return tuple(sorted(read_validations(study.directory), key=lambda one: one.registration.flops))


def validation_errors(study: Study) -> Iterator[str]:
    """Yield a sentence for every registered prediction or score that the points contradict.

    The points that a prediction was made from must have its hash, its runs must have started after it, and
    its score must follow from their losses. `read_registrations` checks the hash of the prediction.
    """
    points = table(study)
    by_key = {str(point.run_key): point for point in points.points}
    started = (
        dict(zip(by_key, points.extras["started_at"], strict=True)) if "started_at" in points.extras else {}
    )
    tested = validation_keys(study)
    grid = sha256_json(sorted([key, point.loss] for key, point in by_key.items() if key not in tested))
    for one in validations(study):
        name = f"{study.name} at {one.registration.flops:.3g} FLOPs"
        if one.registration.points_sha256 != grid:
            yield f"{name}: the prediction was made from other points"
        early = [
            run.name
            for run in one.registration.runs
            if started[run.run_key] <= one.registration.registered_at
        ]
        if early:
            yield f"{name}: {', '.join(early)} started before the prediction was registered"
        again = score(one.registration, by_key)
        if again is None or list(unequal(_scores(one), _scores(again))):
            yield f"{name}: the stored score does not follow from the points"


def _scores(one: Validation) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(one).items() if name in SCORED}


def draw(study: Study, fits: Mapping[str | None, Fit], directory: Path) -> list[Path]:
    """Draw the figures of a study without arms into a directory as PNG and return their paths."""
    if not study.figures:
        return []
    results = SweepResults(
        fit=fits[None],
        points=grid_points(study),
        validations=validations(study),
        hparams=next(iter(read_hparams(study.directory)), None),
    )
    paths = [path for name in study.figures for path in FIGURES[name].save(results, directory / name)]
    for path in paths:
        if path.suffix == ".svg":
            path.unlink()
    return [path for path in paths if path.suffix == ".png"]
