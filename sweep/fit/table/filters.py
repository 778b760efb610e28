"""Filters that remove points before a fit; each is named and counted in fit.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.config import FilterConfig
from sweep.records import Point

NO_FILTERS = FilterConfig(
    drop_highest_losses=0, max_loss=None, min_flops=None, max_flops=None, max_epochs=None
)
HPARAM_CHECK = "hparam_check"  # purpose of a run that checks a learning rate or a batch size
Labelled = tuple[Point, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class AppliedFilter:
    """An active filter and the number of points it removed."""

    name: str
    value: float | str
    n_dropped: int

    def to_json(self) -> dict[str, Any]:
        """Return the entry in fit.json."""
        return {"name": self.name, "value": self.value, "n_dropped": self.n_dropped}


def apply_filters(
    points: Sequence[Labelled], config: FilterConfig
) -> tuple[list[Labelled], list[tuple[str, str]], tuple[AppliedFilter, ...]]:
    """Return the kept points, label and reason of each removed one, and the filters with their counts.

    Filters are applied in sequence, so each point is counted once: first runs that check hyperparameters,
    which do not belong to the grid and are always removed, then the highest losses, then the limits.
    """
    kept, dropped, applied = list(points), [], []
    checks = [label for point, label in kept if point.purpose == HPARAM_CHECK]
    if checks:
        kept = [pair for pair in kept if pair[0].purpose != HPARAM_CHECK]
        dropped += [(label, f"filter purpose={HPARAM_CHECK}") for label in checks]
        applied.append(AppliedFilter(name="purpose", value=HPARAM_CHECK, n_dropped=len(checks)))
    for name, value, fails in _active(kept, config):
        failing = [pair for pair in kept if fails(pair[0])]
        kept = [pair for pair in kept if not fails(pair[0])]
        dropped += [(label, f"filter {name}={value:g}") for _, label in failing]
        applied.append(AppliedFilter(name=name, value=value, n_dropped=len(failing)))
    return kept, dropped, tuple(applied)


def _active(
    points: Sequence[Labelled], config: FilterConfig
) -> list[tuple[str, float, Callable[[Point], bool]]]:
    """Return name, value and test of each configured filter; the test is true for a point to remove."""
    active: list[tuple[str, float, Callable[[Point], bool]]] = []
    if config.drop_highest_losses:
        losses = sorted((point.loss or 0.0 for point, _ in points), reverse=True)
        limit = losses[min(config.drop_highest_losses, len(losses)) - 1] if losses else 0.0
        active.append(
            ("drop_highest_losses", config.drop_highest_losses, lambda point: (point.loss or 0.0) >= limit)
        )
    limits: list[tuple[str, float | None, Callable[[Point], float | None], bool]] = [
        ("max_loss", config.max_loss, lambda point: point.loss, True),
        ("min_flops", config.min_flops, _flops, False),
        ("max_flops", config.max_flops, _flops, True),
        ("max_epochs", config.max_epochs, _epochs, True),
    ]
    for name, value, measure, is_upper in limits:
        if value is not None:
            active.append((name, value, _beyond(value, measure, is_upper)))
    return active


def _beyond(
    limit: float, measure: Callable[[Point], float | None], is_upper: bool
) -> Callable[[Point], bool]:
    def fails(point: Point) -> bool:
        value = measure(point)
        return value is not None and (value > limit if is_upper else value < limit)

    return fails


def _flops(point: Point) -> float | None:
    if point.flops is not None or point.n_params is None or point.n_tokens is None:
        return point.flops
    return 6.0 * point.n_params * point.n_tokens


def _epochs(point: Point) -> float | None:
    if point.epochs is not None or not point.n_tokens or not point.n_tokens_unique:
        return point.epochs
    return point.n_tokens / point.n_tokens_unique
