"""The result of a single fit method, without the checks and the other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sweep.config import FitConfig
from sweep.fit import Law, Refusal
from sweep.fit.fit import fit_method
from sweep.fit.table.observations import observe
from sweep.records import Point


def answer(points: Sequence[Point], method: str, config: FitConfig, **changes: Any) -> Law | Refusal:
    """Fit one method with `config` and `changes` to it."""
    config = replace(config, **changes)
    observations = observe(points, filters=config.filters, allow_mixed_schedules=config.allow_mixed_schedules)
    return fit_method(method, observations, config)
