"""What a tracker promises, the registry of trackers, and the guard against their failures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sweep.config import TrackingConfig
from sweep.credentials import redact
from sweep.records import TrackedRun
from sweep.tracking.wandb import start_wandb

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Follows one attempt at a run."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Show one record of metrics.jsonl."""
        ...

    def finish(self, point: Mapping[str, Any] | None) -> None:
        """Close the attempt: with the run's point, or None when it goes on elsewhere or failed."""
        ...


class NoTracker:
    """Shows nothing."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, point: Mapping[str, Any] | None) -> None:
        """Nothing."""


class GuardedTracker:
    """Passes on to a tracker until it fails or is finished; a failure is said once and costs nothing else."""

    def __init__(self, start: Callable[[], Tracker]) -> None:
        self._tracker: Tracker = NoTracker()
        self._guarded(lambda: setattr(self, "_tracker", start()))

    def log(self, record: Mapping[str, Any]) -> None:
        """Show one record."""
        self._guarded(lambda: self._tracker.log(record))

    def finish(self, point: Mapping[str, Any] | None) -> None:
        """Close the attempt. Only the first call counts."""
        self._guarded(lambda: self._tracker.finish(point))
        self._tracker = NoTracker()

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a service does, the run goes on
            self._tracker = NoTracker()
            told = redact(str(error))
            log.warning("tracking stopped, the run goes on: %s: %s", type(error).__name__, told)


TRACKERS: dict[str, Callable[[TrackingConfig, TrackedRun], Tracker]] = {
    "none": lambda config, run: NoTracker(),
    "wandb": start_wandb,
}


def track(config: TrackingConfig, run: TrackedRun) -> GuardedTracker:
    """A tracker for one attempt, as `config` names it. Never raises."""
    return GuardedTracker(lambda: TRACKERS[config.name](config, run))
