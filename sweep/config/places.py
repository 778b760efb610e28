"""Paths that a user gives, and the directories of an experiment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from sweep.errors import InputError

if TYPE_CHECKING:  # sweep.config imports this module
    from sweep.config import ExperimentConfig


MAX_PARTS = 256
"""Limit of nested directories in a path: creating them takes stack frames."""


def user_path(text: str, place: str = "") -> Path:
    """Return the path that `text` names, relative to the working directory, with ~ expanded.

    Raises InputError, with the text as given and the key in `place`, where ~ names no home directory, and for
    a path of more than `MAX_PARTS` directories.
    """
    shown = f"{place}={text}" if place else text
    expanded = os.path.expanduser(text)  # noqa: PTH111  # a Path drops the ./ of ./~x, a directory of that name
    if expanded.startswith("~"):
        if text.partition("/")[0] != "~":
            raise InputError(
                f"{shown} names the home directory of a user who does not exist: write ./{text} for a "
                f"directory of that name"
            )
        raise InputError(
            f"{shown} needs a home directory, and none is known: set HOME, or write the path without ~"
        )
    path = Path(expanded)
    if len(path.parts) > MAX_PARTS:
        raise InputError(
            f"{shown[:80]}… has {len(path.parts)} nested directories, at most {MAX_PARTS} can be created: "
            f"use a shorter path"
        )
    return path


def working_directory() -> Path:
    """Return the working directory. Raises InputError where it has been deleted."""
    try:
        return Path.cwd()
    except OSError:
        raise InputError(
            "the working directory does not exist any more: change to another and repeat the command"
        ) from None


def cache_directory() -> Path | None:
    """Return the user's cache directory; None for a user without a home directory or XDG_CACHE_HOME."""
    try:
        return platformdirs.user_cache_path("sweep")
    except RuntimeError:  # neither HOME nor an entry in the password database
        return None


def sweep_directory(experiment: ExperimentConfig) -> Path:
    """Return the directory of the experiment's sweep."""
    return user_path(experiment.results_dir, "results_dir") / experiment.name


def data_directory(experiment: ExperimentConfig) -> Path:
    """Return the directory of prepared data: `data_dir`, or the user's cache directory.

    Raises InputError where both are missing.
    """
    directory = (
        cache_directory() if experiment.data_dir is None else user_path(experiment.data_dir, "data_dir")
    )
    if directory is None:
        raise InputError(
            "data_dir is not given, and this user has no home directory for a cache: give data_dir=DIR, or "
            "set HOME or XDG_CACHE_HOME"
        )
    return directory


def hparam_directory(experiment: ExperimentConfig) -> Path:
    """Return the directory of the hyperparameter check, a sweep inside the experiment's sweep."""
    return sweep_directory(experiment) / "hparams"
