"""Seconds of a run by activity; they add up to its wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

Activity = Literal["start_up", "compile", "train", "evaluate", "checkpoint", "idle"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)


class TimeLedger:
    """Attributes all time since its creation to exactly one activity, first `start_up`.

    Seconds are wall time of the run; device-seconds are these times the number of devices.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[Activity, float] = dict.fromkeys(ACTIVITIES, 0.0)
        self._now: Activity = "start_up"
        self._since = clock()

    @contextmanager
    def track(self, activity: Activity) -> Iterator[None]:
        """Count the time of the block as `activity`; may be nested, the innermost counts."""
        outer = self._switch(activity)
        try:
            yield
        finally:
            self._switch(outer)

    def inherit(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds of earlier attempts up to the checkpoint being resumed."""
        for activity in ACTIVITIES:
            self._seconds[activity] += seconds.get(activity, 0.0)

    def move(self, source: Activity, target: Activity, seconds: float) -> None:
        """Move `seconds` from `source` to `target`, at most what `source` has."""
        self._switch(self._now)
        moved = min(seconds, self._seconds[source])
        self._seconds[source] -= moved
        self._seconds[target] += moved

    def seconds(self) -> dict[Activity, float]:
        """Return the seconds by activity up to now."""
        self._switch(self._now)
        return dict(self._seconds)

    def _switch(self, activity: Activity) -> Activity:
        now = self._clock()
        self._seconds[self._now] += now - self._since
        self._since, before, self._now = now, self._now, activity
        return before
