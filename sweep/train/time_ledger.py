"""Where a run's time goes: seconds by what was done, whose sum is its wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

Activity = Literal["start_up", "compile", "train", "evaluate", "checkpoint", "idle"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)


class Ledger:
    """Books every moment since it was made under exactly one activity, `start_up` to begin with.

    Seconds are of the run: all its devices do the same, so device-seconds are these times their number.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[Activity, float] = dict.fromkeys(ACTIVITIES, 0.0)
        self._now: Activity = "start_up"
        self._since = clock()

    @contextmanager
    def spend(self, activity: Activity) -> Iterator[None]:
        """Book what happens within under `activity`; may be nested, the innermost counts."""
        outer = self._switch(activity)
        try:
            yield
        finally:
            self._switch(outer)

    def inherit(self, seconds: Mapping[str, float]) -> None:
        """Add what earlier attempts booked up to the checkpoint that is taken up."""
        for activity in ACTIVITIES:
            self._seconds[activity] += seconds.get(activity, 0.0)

    def move(self, source: Activity, target: Activity, seconds: float) -> None:
        """Book `seconds` of `source` under `target` instead; at most what `source` has."""
        self._switch(self._now)
        moved = min(seconds, self._seconds[source])
        self._seconds[source] -= moved
        self._seconds[target] += moved

    def seconds(self) -> dict[Activity, float]:
        """By activity, up to now."""
        self._switch(self._now)
        return dict(self._seconds)

    def _switch(self, activity: Activity) -> Activity:
        now = self._clock()
        self._seconds[self._now] += now - self._since
        self._since, before, self._now = now, self._now, activity
        return before
