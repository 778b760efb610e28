"""The settings of an experiment as a YAML file that `sweep plan` and `sweep run` read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import yaml

from sweep.config import AdaptiveConfig, ExperimentConfig, to_dict
from sweep.config.effects import without_effect

PRIVATE = ("data_dir", "results_dir", "store")  # settings of this machine, which a page to pass on omits
HEADER = "# @package _global_\n"
WIDTH = 110


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentFile:
    """An experiment as a file of configs/experiment, and the parts that another run of it shares."""

    name: str  # of the file, without its suffix, and of the sweep
    whole: str
    grid: str  # lines of the section `grid` without sizes
    rest: str  # sections after name, budgets, seeds and grid

    def to_json(self) -> dict[str, str]:
        """Return its entry in the document."""
        return asdict(self)


def experiment_file(experiment: ExperimentConfig) -> ExperimentFile:
    """Return the file of an experiment, or of one arm of it under a name of its own."""
    name = experiment.name if experiment.arm is None else f"{experiment.name}_{_plain(experiment.arm)}"
    of_arm = "" if experiment.arm is None else f"# Arm {experiment.arm} of {experiment.name}.\n"
    one_width = replace(experiment.grid, d_model=(1,), n_params=None)
    single = _settings(
        replace(experiment, budgets=(1.0,), seeds=(0,), grid=one_width, adaptive=AdaptiveConfig())
    )
    grid = _without(single["grid"], {"d_model", "n_params"})
    return ExperimentFile(
        name=name,
        whole=HEADER + of_arm + _yaml({**_settings(experiment), "name": name}),
        grid="".join(f"  {line}\n" for line in yaml.safe_dump(grid, sort_keys=False).splitlines()),
        rest=_yaml(_without(single, {"name", "budgets", "seeds", "grid", "adaptive"})),
    )


def _settings(experiment: ExperimentConfig) -> dict[str, Any]:
    """Return every setting that has an effect, those of this machine left out."""
    values = to_dict(experiment)
    idle = without_effect(experiment, list(_keys(values)))
    return _without(values, {*PRIVATE, "arm", *idle})


def _keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested sections."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _without(values: Mapping[str, Any], dropped: set[str], prefix: str = "") -> dict[str, Any]:
    """Return nested sections without the keys `dropped`."""
    return {
        key: _without(value, dropped, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in dropped
    }


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(
        dict(values), sort_keys=False, allow_unicode=True, default_flow_style=None, width=WIDTH
    )
