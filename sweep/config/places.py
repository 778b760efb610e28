"""Directories of an experiment: its sweep, its prepared data, its hyperparameter check."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from sweep.config import ExperimentConfig


def sweep_directory(experiment: ExperimentConfig) -> Path:
    """Return the directory of the experiment's sweep."""
    return Path(experiment.results_dir) / experiment.name


def data_directory(experiment: ExperimentConfig) -> Path:
    """Return the directory of prepared data: `data_dir`, or the user's cache directory."""
    return Path(experiment.data_dir) if experiment.data_dir else platformdirs.user_cache_path("sweep")


def hparam_directory(experiment: ExperimentConfig) -> Path:
    """Return the directory of the hyperparameter check, a sweep inside the experiment's sweep."""
    return sweep_directory(experiment) / "hparams"
