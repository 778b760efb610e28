"""Reads experiments stored by earlier versions, whose keys have since been removed or renamed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from sweep.config.experiment import ExperimentConfig
from sweep.config.reading import read_experiment

REMOVED_KEYS = (
    "parametrization",  # mup exactly where mup_base_width is a number
    "estimate.currency",
)
"""Keys of earlier versions without a counterpart today, nested ones with dots."""


def read_stored_experiment(values: Mapping[str, Any]) -> ExperimentConfig:
    """Read the experiment of a plan file, without the keys that this version no longer has.

    Raises:
        InputError: As `read_experiment`.
    """
    current = copy.deepcopy(dict(values))
    for key in REMOVED_KEYS:
        *parents, last = key.split(".")
        section: Any = current
        for parent in parents:
            section = section.get(parent) if isinstance(section, Mapping) else None
        if isinstance(section, dict):
            section.pop(last, None)
    return read_experiment(current)
