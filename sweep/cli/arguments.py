"""What follows a verb on the command line: the arguments' types, and what experiment or sweep they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.errors import InputError

if TYPE_CHECKING:  # composing takes Hydra, which --help must not wait for
    from sweep.config import ExperimentConfig

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DIR] [OVERRIDES]...", help="a sweep's directory, or key=value in Hydra's grammar"
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[OVERRIDES]...", help="key=value in Hydra's grammar")
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="a sweep's directory, as results/demo")]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", metavar="DIR", help="searched for configs before ./configs")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout and nothing else")]


def split_arguments(arguments: Sequence[str] | None) -> tuple[Path | None, list[str]]:
    """An argument without `=` is a sweep's directory. Raises InputError for a second one."""
    overrides = [argument for argument in arguments or () if _is_override(argument)]
    directories = [argument for argument in arguments or () if not _is_override(argument)]
    if len(directories) > 1:
        raise InputError(f"{' and '.join(directories)} are two directories: give one, and key=value after it")
    return (Path(directories[0]) if directories else None), overrides


def sweep_of_law(overrides: Sequence[str]) -> Path | None:
    """The sweep that a law=FILE lies in, whose family of decoders it is then about."""
    laws = [override.partition("=")[2].strip("'\"") for override in overrides if override.startswith("law=")]
    above = list(Path(laws[-1]).absolute().parents)[:3] if laws else []  # arms lie two directories deeper
    named = names_experiment(overrides)
    return next((path for path in above if not named and (path / "plans").is_dir()), None)


def names_experiment(overrides: Sequence[str]) -> bool:
    """Whether the overrides choose an experiment by its name."""
    return any(override.startswith("experiment=") for override in overrides)


def _is_override(argument: str) -> bool:
    key, equals, _ = argument.partition("=")
    return argument.startswith("~") or (bool(equals) and "/" not in key and not Path(argument).is_dir())


def first_arm_of(overrides: Sequence[str] | None, config_dir: Path | None) -> ExperimentConfig:
    """The experiment, or the first of its arms."""
    return arms_of(overrides, config_dir)[0]


def arms_of(overrides: Sequence[str] | None, config_dir: Path | None) -> tuple[ExperimentConfig, ...]:
    """The experiment's arms, itself alone where it has none. Raises InputError for what is no override."""
    from sweep.config.compose import compose_experiments

    for override in overrides or ():
        if "=" not in override and not override.startswith("~"):
            raise InputError(f"{override} is no key=value: did you mean experiment={override}?")
    return compose_experiments(overrides or (), config_dir)


def experiment_of(
    sweep_dir: Path | None, overrides: Sequence[str], config_dir: Path | None
) -> ExperimentConfig:
    """The experiment a sweep was planned with last, or the composed one; overrides on top."""
    if sweep_dir is None:
        return first_arm_of(overrides, config_dir)
    from sweep.config.compose import override_experiment
    from sweep.study import run as study

    return override_experiment(study.latest_experiment(sweep_dir), overrides, config_dir)


def directory_of(arguments: Sequence[str] | None, config_dir: Path | None) -> Path:
    """The sweep's directory that is given, or that of the experiment composed."""
    from sweep.study import run as study

    sweep_dir, overrides = split_arguments(arguments)
    if sweep_dir is not None and overrides:
        raise InputError(f"{sweep_dir} needs no {' '.join(overrides)}: give the directory alone")
    return sweep_dir or study.sweep_directory(first_arm_of(overrides, config_dir))
