"""Where an experiment's sweep and its prepared data lie."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from sweep.config import ExperimentConfig


def sweep_directory(experiment: ExperimentConfig) -> Path:
    """Where the experiment's sweep lies."""
    return Path(experiment.results_dir) / experiment.name


def data_directory(experiment: ExperimentConfig) -> Path:
    """Where prepared data lies: `data_dir`, else the user's cache directory."""
    return Path(experiment.data_dir) if experiment.data_dir else platformdirs.user_cache_path("sweep")


def hparam_directory(experiment: ExperimentConfig) -> Path:
    """Where the runs of a hyperparameter check lie: a sweep of its own inside the experiment's."""
    return sweep_directory(experiment) / "hparams"
