"""The experiment of a page as a file that composes to the same experiment."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.config import ExperimentConfig, to_dict
from sweep.config.compose import compose_experiment, compose_experiments
from sweep.report.html.experiment import experiment_file

LOCAL = {"data_dir": "/somewhere/else", "results_dir": "/elsewhere"}


def stored(directory: Path, name: str, text: str) -> None:
    path = directory / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=demo"],
        ["experiment=isoflop_1gpu"],
        ["experiment=smoke", "model=llama", "model.width_multiple=8", "grid.d_model=null", "grid.n_sizes=5"],
        ["experiment=smoke", "optimizer=muon", "schedule=wsd", "data=text", "data.files=['a b/*.txt']"],
    ],
)
def test_a_file_composes_to_its_experiment(tmp_path, caplog, overrides):
    experiment = compose_experiment(overrides)
    file = experiment_file(replace(experiment, **LOCAL))
    assert "elsewhere" not in file.whole
    stored(tmp_path, file.name, file.whole)
    with caplog.at_level(logging.WARNING):
        found = compose_experiment([f"experiment={file.name}"], tmp_path)
    assert not caplog.records  # every key of the file has an effect
    assert differences(found, experiment) <= {"model.qk_gain"}  # without an effect here, and no default


def differences(a: ExperimentConfig, b: ExperimentConfig) -> set[str]:
    """Return the dotted keys in which two experiments differ."""
    one, other = dict(_flat(to_dict(a))), dict(_flat(to_dict(b)))
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_an_arm_is_an_experiment_of_its_own(tmp_path):
    arms = compose_experiments(["experiment=smoke", "arms={optimizer.lr_multiplier: [0.5, 1]}"])
    file = experiment_file(arms[0])
    assert file.name == "smoke_optimizer_lr_multiplier_0_5"
    assert "# Arm optimizer.lr_multiplier=0.5 of smoke.\n" in file.whole
    stored(tmp_path, file.name, file.whole)
    found = compose_experiment([f"experiment={file.name}"], tmp_path)
    assert found == replace(arms[0], name=file.name, arm=None)


def test_the_parts_make_an_experiment_of_one_run(tmp_path, caplog):
    experiment = compose_experiment(["experiment=demo", "adaptive.enabled=true"])
    file = experiment_file(experiment)
    stored(
        tmp_path,
        "one",
        "# @package _global_\nname: one\nbudgets: [1e12]\ngrid:\n  d_model: [64]\n" + file.grid + file.rest,
    )
    with caplog.at_level(logging.WARNING):
        found = compose_experiment(["experiment=one"], tmp_path)
    assert not caplog.records
    assert (found.budgets, found.grid.d_model, found.seeds) == ((1e12,), (64,), (0,))
    assert (found.model, found.data, found.optimizer) == (
        experiment.model,
        experiment.data,
        experiment.optimizer,
    )
    assert not found.adaptive.enabled
    assert yaml.safe_load(file.grid)["tokens_per_param"] == 8
