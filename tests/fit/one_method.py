"""What one method makes of points, the others left aside: they take most of the time of a fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sweep.config import FitConfig
from sweep.fit import Law, Refusal, fit
from sweep.records import Point


def answer(points: Iterable[Point], method: str, config: FitConfig) -> Law | Refusal:
    return fit(points, replace(config, methods=(method,))).methods[method]
