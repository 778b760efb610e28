"""The result of a single fit method, without the time that the other methods take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sweep.config import FitConfig
from sweep.fit import Law, Refusal, fit
from sweep.records import Point


def answer(points: Iterable[Point], method: str, config: FitConfig, **changes: Any) -> Law | Refusal:
    """Fit one method with `config` and `changes` to it."""
    return fit(points, replace(config, methods=(method,), **changes)).methods[method]
