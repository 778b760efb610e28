"""Arguments of verbs: their types, and the experiments, directories, tables and budgets that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.completion import complete_directory, complete_directory_or_setting, complete_setting
from sweep.errors import InputError
from sweep.shell import path_argument


def given_path(text: str) -> Path:
    """Return the path of an argument, with ~ expanded. Raises InputError for "", and as `user_path`."""
    from sweep.config.places import user_path  # pydantic is slow to import, and --help does not need it

    if not str(text).strip():  # a Path for the default of an option
        raise InputError("an empty path is given: give the path of a file or directory, or . for this one")
    return user_path(text)


if TYPE_CHECKING:  # pydantic is slow to import, and --help does not need it
    from sweep.config import ColumnsConfig, ExperimentConfig, FitConfig

SweepDirectory = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR",
        help="Directory of a sweep, such as results/demo; by default the only one in results.",
        autocompletion=complete_directory_or_setting,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings of the experiment, in Hydra's grammar; experiment=NAME chooses the experiment.",
        autocompletion=complete_setting,
    ),
]
Directory = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="Directory of a sweep, such as results/demo.",
        parser=given_path,
        autocompletion=complete_directory,
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        "--config-dir",
        metavar="DIR",
        help="Search this directory for configs before ./configs.",
        parser=given_path,
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=NAME",
        help="Column of a field in the table, such as n_params='Model Size', 'n_params=size*1e6' or "
        "'loss=ln(ppl)'. Can be repeated.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPRESSION",
        help="Fit only these rows of the table, such as 'experiment == \"x\" and n_params > 1e8'.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show everything that the fit found.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def split_arguments(first: str | None, others: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the arguments that are not overrides, and the overrides (KEY=VALUE or ~KEY)."""
    arguments = [*([] if first is None else [first]), *(others or ())]
    overrides = [argument for argument in arguments if _is_override(argument)]
    return [argument for argument in arguments if not _is_override(argument)], overrides


def split_path(first: str | None, others: Sequence[str] | None) -> tuple[Path | None, list[str]]:
    """Return the path among the arguments, if any, and the overrides. Raises InputError for a second path."""
    paths, overrides = split_arguments(first, others)
    if len(paths) > 1:
        raise InputError(f"{' and '.join(paths)} are both given: give one, and KEY=VALUE after it")
    return (given_path(paths[0]) if paths else None), overrides


def _is_override(argument: str) -> bool:
    key, equals, _ = argument.partition("=")
    if argument.startswith("~"):  # ~KEY removes a key, and ~/DIR is a path
        return "/" not in argument
    return bool(equals) and "/" not in key and not Path(argument).exists()


def names_experiment(overrides: Sequence[str]) -> bool:
    """Return whether the overrides, or arms that they give, choose an experiment by its name."""
    named = re.compile(r"\+*(experiment=|arms(\.experiment=|=.*\bexperiment\s*:))", re.DOTALL)
    return any(named.match(override) for override in overrides)


def first_arm_of(overrides: Sequence[str] | None, config_dir: Path | None) -> ExperimentConfig:
    """Return the composed experiment, or the first of its arms."""
    return arms_of(overrides, config_dir)[0]


def arms_of(overrides: Sequence[str] | None, config_dir: Path | None) -> tuple[ExperimentConfig, ...]:
    """Return the arms of the composed experiment, one without arms. Raises InputError for a bad override."""
    from sweep.config.compose import compose_experiments

    _check_form(overrides or ())
    return compose_experiments(overrides or (), config_dir)


def _check_form(overrides: Sequence[str]) -> None:
    """Raise InputError for an argument that is not KEY=VALUE, which may be the name of an experiment."""
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise InputError(f"{override} is not KEY=VALUE: did you mean experiment={Path(override).stem}?")


def stored_experiment(sweep_dir: Path, overrides: Sequence[str], config_dir: Path | None) -> ExperimentConfig:
    """Return the experiment that a sweep was last planned with, with overrides applied."""
    from sweep.config.compose import override_experiment
    from sweep.study.plan import latest_experiment

    return override_experiment(latest_experiment(sweep_dir), overrides, config_dir)


def directory_of(
    first: str | None, others: Sequence[str] | None, config_dir: Path | None, *, planned: bool = True
) -> Path:
    """Return the given directory, or that of the composed experiment's sweep, by default the only sweep.

    With `planned`, sweeps of imported runs alone do not count for the default.
    """
    from sweep.config.places import sweep_directory

    sweep_dir, overrides = split_path(first, others)
    if sweep_dir is not None and overrides:
        raise InputError(f"{' '.join(overrides)} has no effect on {sweep_dir}: give the directory alone")
    if sweep_dir is None and not overrides:
        return only_sweep(planned=planned)
    if sweep_dir is not None and not (sweep_dir / "plans").is_dir() and not (sweep_dir / "runs").is_dir():
        from sweep.store.plans import no_plan

        raise no_plan(sweep_dir)
    return sweep_dir or sweep_directory(first_arm_of(overrides, config_dir))


def only_sweep(*, planned: bool = False) -> Path:
    """Return the only sweep in results/. Raises InputError, with the list, where there is none or several."""
    from sweep.store.plans import sweeps_in

    found = [path for path in sweeps_in(Path("results")) if not planned or (path / "plans").is_dir()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(
            "results holds no sweep here: give the directory of one, or start one with sweep run"
        )
    raise InputError(f"results holds {len(found)} sweeps: give one of {', '.join(map(str, found))}")


def require_experiment(verb: str, overrides: Sequence[str] | None, config_dir: Path | None) -> None:
    """Raise InputError, with the experiments there are, when the settings do not name one."""
    _check_form(overrides or ())
    if names_experiment(overrides or ()):
        return
    from sweep.config.compose import experiment_names

    names = ", ".join(experiment_names(config_dir))
    settings = "".join(f" {shlex.quote(override)}" for override in overrides or ())
    raise InputError(
        f"no experiment is given: write sweep {verb} experiment=NAME{settings} with one of {names}"
    )


def fit_settings(overrides: Sequence[str], config_dir: Path | None) -> FitConfig:
    """Return the settings of a fit outside a sweep. Raises InputError for keys that are not of the fit."""
    from sweep.config import FitConfig
    from sweep.config.compose import packaged_configs, search_path

    check_fit_only(overrides)
    if not overrides and search_path(config_dir) == [packaged_configs().resolve()]:
        return FitConfig()  # that of the default experiment: Hydra is slow to import
    return first_arm_of(overrides, config_dir).fit


def check_fit_only(overrides: Sequence[str]) -> None:
    """Raise InputError for an override of a key outside of the fit."""
    for override in overrides:
        if not override.lstrip("~+").startswith(("fit.", "fit=")):
            raise InputError(
                f"{override} has no effect here: give settings of the fit, such as fit.n_bootstrap=500"
            )


def columns_of(given: Sequence[str]) -> ColumnsConfig:
    """Return the columns of a table, from FIELD=NAME. Raises InputError for an unknown field."""
    from dataclasses import asdict

    from sweep.fit import DEFAULT_COLUMNS

    names: dict[str, str] = {}
    for column in given:
        field, equals, name = column.partition("=")
        if field not in asdict(DEFAULT_COLUMNS) or not equals or not name:
            choices = ", ".join(asdict(DEFAULT_COLUMNS))
            raise InputError(f"--column {column} is not FIELD=NAME with one of the fields {choices}")
        names[field] = name
    return replace(DEFAULT_COLUMNS, **names)


def budget_of(word: str) -> float:
    """Return a budget in FLOPs. Raises InputError for anything else than a number in range."""
    number = number_of(word)
    if number is None or not 0 < number <= 1e30:
        raise InputError(f"{word} is not a budget: give training FLOPs between 0 and 1e30, such as 1e21")
    return number


def is_budget(word: str) -> bool:
    """Return whether a word is meant as a budget: a number, or a multiple such as `10x`."""
    return number_of(word.removesuffix("x")) is not None


def budget_or_multiple(word: str, largest: Callable[[], float]) -> float:
    """Return a budget in FLOPs: a number, or `10x` for 10 times `largest()`.

    Raises InputError for anything else, and as `largest` does.
    """
    is_multiple = word.endswith("x") and is_budget(word)
    return budget_of(word[:-1]) * largest() if is_multiple else budget_of(word)


def number_of(word: str) -> float | None:
    """Return the number that a word is; None for another word."""
    try:
        return float(word)
    except ValueError:
        return None


def refuse_old_grammar(overrides: Sequence[str]) -> None:
    """Raise InputError for arguments given as KEY=VALUE, as earlier versions took them, with the new call."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        key, _, field = key.partition(".")
        value = value.strip("'\"")
        calls = {
            "points": f"sweep fit {path_argument(value)}",
            "columns": f"--column {field}={shlex.quote(value)}",
            "reconcile": "--reconcile",
            "law": f"sweep predict {path_argument(value)} FLOPS",
            "flops": f"sweep predict DIR {' '.join(value.strip('[]').split(','))}",
            "inference_tokens": f"--inference-tokens {shlex.quote(value)}",
        }
        if key in calls:
            raise InputError(f"{override} is no longer a setting: write {calls[key]}")
