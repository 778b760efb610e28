"""The tracker protocol, the registry of trackers, and a wrapper that contains their failures."""

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
    """Records one attempt at a run."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Record one entry of metrics.jsonl."""
        ...

    def finish(self, point: Mapping[str, Any] | None) -> None:
        """Close the attempt with the run's point, or None if the attempt failed or was preempted."""
        ...


class NoTracker:
    """A tracker that records nothing."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, point: Mapping[str, Any] | None) -> None:
        """Do nothing."""


class GuardedTracker:
    """Forwards to a tracker until it fails or is finished; a failure is logged once and never raised."""

    def __init__(self, start: Callable[[], Tracker]) -> None:
        self._tracker: Tracker = NoTracker()
        self._guarded(lambda: setattr(self, "_tracker", start()))

    def log(self, record: Mapping[str, Any]) -> None:
        """Record one entry."""
        self._guarded(lambda: self._tracker.log(record))

    def finish(self, point: Mapping[str, Any] | None) -> None:
        """Close the attempt; later calls have no effect."""
        self._guarded(lambda: self._tracker.finish(point))
        self._tracker = NoTracker()

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # a failing service must not stop the run
            self._tracker = NoTracker()
            message = redact(str(error))
            log.warning("tracking stopped, training continues: %s: %s", type(error).__name__, message)


TRACKERS: dict[str, Callable[[TrackingConfig, TrackedRun], Tracker]] = {
    "none": lambda config, run: NoTracker(),
    "wandb": start_wandb,
}


def track(config: TrackingConfig, run: TrackedRun) -> GuardedTracker:
    """Return the tracker that `config.name` selects, for one attempt. Never raises."""
    return GuardedTracker(lambda: TRACKERS[config.name](config, run))
