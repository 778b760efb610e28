"""The heartbeat of an active attempt: a thread, so that training steps do no I/O."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from sweep.store.attempts.active import ActiveAttempt
from sweep.store.attempts.host import seconds_since_boot

MAX_BEAT_S = 2.0
"""Longest time between beats, at most a sixth of the lease. Also the age of the steps shown by status."""

FIRST_BEAT_S = 0.1
"""Time to the first beat, doubled for each further one: an attempt killed early still shows its progress."""


class Heartbeat(threading.Thread):
    """Beats for one attempt until stopped, lost or stuck; the training thread only accesses fields."""

    def __init__(
        self,
        attempt: ActiveAttempt,
        *,
        lease_s: float,
        stall_s: float,
        cancelled: Callable[[], bool] = lambda: False,
        on_stuck: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the thread; it calls `on_stuck` after `stall_s` plus a lease without progress."""
        super().__init__(name=f"heartbeat-{attempt.run_key}", daemon=True)
        self.cancelled = False
        self.step = 0
        self._first_step: int | None = None
        self._attempt = attempt
        self._lease_s, self._stall_s = lease_s, stall_s
        self._read_cancelled, self._on_stuck = cancelled, on_stuck
        self._beat_s = min(MAX_BEAT_S, lease_s / 6)
        self._over = threading.Event()
        self._advances = 0
        self._began = seconds_since_boot()
        self._last_beat = self._began  # the claim carried the first beat

    def advanced(self, step: int) -> None:
        """Record progress: `step` steps are done. Called by the training thread."""
        if self._first_step is None:
            self._first_step = step
        self.step = step
        self._advances += 1

    def holds(self) -> bool:
        """Return True while the attempt is safely held: its last written beat is recent enough.

        False once it is half a lease old. Observers wait a whole lease, so this turns False before a takeover
        unless the process was suspended, and then the commit fails since the directory was renamed. Reads a
        clock and two fields only.
        """
        silent_s = seconds_since_boot() - self._last_beat
        if silent_s > self._lease_s / 2:
            self._attempt.mark_lost(f"no heartbeat for {silent_s:.0f} s")
        return self._attempt.lost is None

    def stop(self) -> None:
        """Stop beating; returns when the thread has ended."""
        self._over.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Beat until stopped, or until the attempt is lost or stuck."""
        counter, silent_s, seen = 0, 0.0, -1
        beat_at = ticked_at = time.monotonic()
        beat_s = min(FIRST_BEAT_S, self._beat_s)
        tick_s = beat_s / 2
        while not self._over.wait(tick_s) and self._attempt.lost is None:
            now = time.monotonic()
            # A gap of this thread itself, from a suspended process, does not count as silence of training.
            silent_s += min(now - ticked_at, 2 * tick_s)
            ticked_at = now
            if self._advances != seen:
                seen, silent_s = self._advances, 0.0
            if silent_s > self._stall_s:
                self._give_up_stuck()
                return
            self.cancelled = self.cancelled or self._read_cancelled()
            if now - beat_at >= beat_s:
                counter, beat_at = counter + 1, now
                self._beat(counter)
                beat_s = min(2 * beat_s, self._beat_s)
                tick_s = beat_s / 2

    def _beat(self, counter: int) -> None:
        now = seconds_since_boot()  # before the write: no observer can have seen it earlier
        record = {
            "counter": counter,
            "first_step": self._first_step or 0,
            "step": self.step,
            "elapsed_s": round(now - self._began, 3),
        }
        try:
            self._attempt.beat(record)
            written = True
        except OSError:  # may be temporary; otherwise `holds` turns False in time
            written = False
        if self._attempt.confirm() and written:
            self._last_beat = now

    def _give_up_stuck(self) -> None:
        """End the attempt for the stuck training thread, then give it one lease to return."""
        reason = f"no step for {self._stall_s:.0f} s"
        self._attempt.mark_lost(reason)
        with contextlib.suppress(OSError):
            self._attempt.end("failed:host", reason, self.step)
        if not self._over.wait(self._lease_s):
            self._on_stuck()
