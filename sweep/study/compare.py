"""Comparison of two arms, given as sweeps, arms of a sweep, or tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweep.config import ColumnsConfig, FitConfig
from sweep.errors import InputError
from sweep.fit import DEFAULT_COLUMNS, read_table
from sweep.fit.compare.arms import Arm
from sweep.fit.compare.comparison import ArmPair, Comparison, compare
from sweep.fit.refusals import RefusedError
from sweep.fit.table.points import Table
from sweep.records import Point
from sweep.report.hparam_summary import hyperparameters
from sweep.report.numbers import format4
from sweep.shell import path_argument
from sweep.study.laws import MIN_VALIDATED, VALIDATED, not_found, points_to_fit

ALL_PAIRS = 3  # arms, up to which each two are compared; of more, each with the first


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The runs of one arm, with the place that they come from."""

    path: Path
    arm: str | None
    points: tuple[Point, ...]
    excluded: dict[str, str]
    is_sweep: bool
    hyperparameters: str | None = None  # a warning about them

    @property
    def argument(self) -> str:
        """The argument of `sweep compare` that names it."""
        return _with_arm(str(self.path), self.arm)


def compare_sources(
    sources: Sequence[str],
    config: FitConfig | None = None,
    *,
    flops: float | None = None,
    columns: ColumnsConfig = DEFAULT_COLUMNS,
) -> Comparison:
    """Compare the second of two sources with the first, or the two arms of one.

    A source is a sweep's directory, a table, or one of them with an arm, as DIR:ARM. `flops` is the target;
    `columns` names columns of tables.

    Raises InputError for sources that are not found, do not give two arms or cannot be compared.
    """
    return _compared(_two_arms(sources, columns), config or FitConfig(), flops)


def compare_arms(sweep_dir: Path, config: FitConfig) -> tuple[ArmPair, ...]:
    """Compare each two arms of a sweep, or each with the first where there are more than ALL_PAIRS.

    The comparisons are those of `compare_sources`. Raises as `points_to_fit`.
    """
    arms = _of_sweep(sweep_dir)
    firsts = arms if len(arms) <= ALL_PAIRS else arms[:1]
    pairs = [(a, b) for at, a in enumerate(firsts) for b in arms[at + 1 :]]
    return tuple(_arm_pair(pair, config) for pair in pairs)


def _arm_pair(pair: tuple[Source, Source], config: FitConfig) -> ArmPair:
    a, b = _names(pair)
    try:
        return ArmPair(a=a, b=b, found=_compared(pair, config, None))
    except InputError as error:
        return ArmPair(a=a, b=b, found=None, refused=str(error))


def _compared(pair: tuple[Source, Source], config: FitConfig, flops: float | None) -> Comparison:
    """Compare B with A. Raises InputError where they cannot be compared."""
    names = _names(pair)
    a, b = (
        Arm(name=name, points=source.points, excluded=source.excluded)
        for name, source in zip(names, pair, strict=True)
    )
    try:
        found = compare(a, b, config, flops=flops)
    except RefusedError as refused:
        raise InputError(f"no comparison: {refused.refusal.reason}") from None
    unchecked = [
        f"{warning} of {name}"
        for name, source in zip(names, pair, strict=True)
        if (warning := source.hyperparameters) is not None
    ]
    notes = (f"{'; '.join(unchecked)}: a rate that suits one arm decides for it",) if unchecked else ()
    return replace(found, warnings=(*found.warnings, *notes), next=_next(pair, found))


def _two_arms(sources: Sequence[str], columns: ColumnsConfig) -> tuple[Source, Source]:
    if not 1 <= len(sources) <= 2:
        raise InputError("give two sweeps, arms or tables to compare, or one sweep with two arms")
    resolved = [_resolve(source, columns) for source in sources]
    if len(resolved) == 1:
        arms = resolved[0]
        if len(arms) != 2:
            wanted = "add the sweep or table to compare it with" if len(arms) == 1 else "name two to compare"
            raise InputError(f"{sources[0]} has {_count(arms)}: {wanted}, as {_example(arms)}")
        return arms[0], arms[1]
    for source, arms in zip(sources, resolved, strict=True):
        if len(arms) != 1:
            raise InputError(f"{source} has {_count(arms)}: name one of them, as {arms[0].argument}")
    one, other = resolved[0][0], resolved[1][0]
    if (one.path.absolute(), one.arm) == (other.path.absolute(), other.arm):
        raise InputError(f"{sources[0]} is given twice: compare it with another sweep, arm or table")
    return one, other


def _count(arms: Sequence[Source]) -> str:
    if len(arms) == 1:
        return "no arms"
    return f"{len(arms)} arms ({', '.join(str(arm.arm) for arm in arms)})"


def _example(arms: Sequence[Source]) -> str:
    if len(arms) == 1:
        return f"sweep compare {path_argument(arms[0].path)} OTHER"
    return f"sweep compare {' '.join(path_argument(arm.argument) for arm in arms[:2])}"


def _resolve(source: str, columns: ColumnsConfig) -> list[Source]:
    """Return the arms of a source, one if it names an arm or has none."""
    path, arm = _split(source)
    found = _of_sweep(path) if path.is_dir() else _of_table(path, columns)
    if arm is None:
        return found
    chosen = [one for one in found if one.arm == arm]
    if not chosen:
        names = ", ".join(str(one.arm) for one in found if one.arm is not None)
        known = f"choose from {names}" if names else "it has no arms"
        raise InputError(f"unknown arm {arm} of {path}: {known}")
    return chosen


def _split(source: str) -> tuple[Path, str | None]:
    """Return path and arm of PATH or PATH:ARM. Raises InputError where no path is found."""
    from sweep.config.places import user_path

    whole = user_path(source)
    if whole.exists():
        return whole, None
    at = source.rfind(":")
    while at > 0:
        path = user_path(source[:at])
        if path.exists():
            return path, source[at + 1 :]
        at = source.rfind(":", 0, at)
    raise not_found(source, "give a sweep's directory, DIR:ARM, or a .csv or .parquet file")


def sweep_of(source: str) -> Path | None:
    """Return the planned sweep of a source; None for a table or imported points. Raises as `_split`."""
    path, _ = _split(source)
    return path if (path / "plans").is_dir() else None


def _of_sweep(path: Path) -> list[Source]:
    stored = points_to_fit(path)
    excluded = {item.run_key: item.reason for item in stored.excluded}
    runs = [(point.name, point.run_key) for point in stored.points]
    return [
        Source(
            path=path,
            arm=arm,
            points=tuple(point for point in stored.points if point.arm == arm),
            excluded=excluded,
            is_sweep=True,
            hyperparameters=_hyperparameters(hyperparameters(path, arm, runs)),
        )
        for arm in dict.fromkeys(point.arm for point in stored.points)
    ]


def _hyperparameters(summary: object) -> str | None:
    """Return a warning about a check of hyperparameters; None where it found them within tolerance."""
    if not isinstance(summary, dict):
        return "no check-hparams"
    return None if summary.get("within_tolerance") else "check-hparams out of tolerance"


def _of_table(path: Path, columns: ColumnsConfig) -> list[Source]:
    table = read_table(path, columns)
    if table.is_optima:
        raise InputError(f"{path} holds optima, not runs with N and loss: give a table with one run a row")
    points = _complete(table)
    return [
        Source(
            path=path,
            arm=arm,
            points=tuple(point for point in points if point.arm == arm),
            excluded={},
            is_sweep=False,
        )
        for arm in dict.fromkeys(point.arm for point in points)
    ]


def _complete(table: Table) -> list[Point]:
    """Return the points of a table with a name, and the columns that a comparison needs in addition."""
    found = []
    for at, (point, row) in enumerate(zip(table.points, table.rows, strict=True)):
        values = {name: column[at] for name, column in table.extras.items()}
        found.append(
            replace(
                point,
                name=point.name or (None if point.run_key else row),
                device=_text(values.get("device")),
                bits_per_byte=_number(values.get("bits_per_byte")),
                tokens_per_second=_number(values.get("tokens_per_second")),
            )
        )
    return found


def _text(value: object) -> str | None:
    """Return the text of a cell; None for an empty one."""
    return None if value is None or value != value or str(value) == "" else str(value)


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def _names(pair: tuple[Source, Source]) -> tuple[str, str]:
    """Return the shortest names that differ: of the arms, of the files or directories, or of those above."""
    one, other = pair
    if one.arm is not None and other.arm is not None and one.arm != other.arm:
        return one.arm, other.arm
    if one.path.name != other.path.name:
        return one.path.name, other.path.name
    parts, others = list(one.path.absolute().parts), list(other.path.absolute().parts)
    while parts and others and parts[-1] == others[-1]:
        del parts[-1], others[-1]
    while parts and others and parts[0] == others[0]:
        del parts[0], others[0]
    if not parts or not others:
        return one.argument, other.argument
    return _with_arm("/".join(parts), one.arm), _with_arm("/".join(others), other.arm)


def _with_arm(name: str, arm: str | None) -> str:
    return name if arm is None else f"{name}:{arm}"


def _next(pair: tuple[Source, Source], found: Comparison) -> str:
    """Return the command that tests the comparison: a validation of B, or another target."""
    source = pair[1]
    budget = VALIDATED * max(found.b.budgets)
    if source.is_sweep and budget > MIN_VALIDATED:
        arm = "" if source.arm is None else f" --arm {shlex.quote(source.arm)}"
        return f"sweep validate {path_argument(source.path)} {format4(float(f'{budget:.1e}'))}{arm}"
    arguments = " ".join(path_argument(one.argument) for one in pair)
    return f"sweep compare {arguments} --flops {format4(found.target.flops)} --figure compare.png"
