"""The sign of life of a held attempt: a thread that beats, so that training steps do no I/O."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from sweep.store.attempts.active import HeldAttempt
from sweep.store.attempts.host import seconds_since_boot

MAX_BEAT_S = 2.0
"""Longest time between beats; a lease shorter than six of them beats faster. Also how fresh status is."""

FIRST_BEAT_S = 0.1
"""Time to the first beat, doubled for each one after: an attempt killed early still shows its progress."""


class Heartbeat(threading.Thread):
    """Beats for one attempt until stopped, lost or stuck; the training thread only reads and sets fields."""

    def __init__(
        self,
        attempt: HeldAttempt,
        *,
        lease_s: float,
        stall_s: float,
        cancelled: Callable[[], bool] = lambda: False,
        on_stuck: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_stuck` is called from the thread when training stays silent a lease longer than `stall_s`."""
        super().__init__(name=f"heartbeat-{attempt.run_key}", daemon=True)
        self.cancelled = False
        self.step = 0
        self._first_step: int | None = None
        self._attempt = attempt
        self._lease_s, self._stall_s = lease_s, stall_s
        self._ask_cancelled, self._on_stuck = cancelled, on_stuck
        self._beat_s = min(MAX_BEAT_S, lease_s / 6)
        self._over = threading.Event()
        self._advances = 0
        self._began = seconds_since_boot()
        self._last_beat = self._began  # the claim carried the first beat

    def advanced(self, step: int) -> None:
        """Called by the training thread: it lives, and `step` steps are done."""
        if self._first_step is None:
            self._first_step = step
        self.step = step
        self._advances += 1

    def holds(self) -> bool:
        """Whether the attempt may still be counted ours: false once our last good beat is half a lease old.

        Reads a clock and two fields. Observers wait a whole lease, so a false answer always comes before
        anybody takes over, unless this process was stopped; then its commit fails for the name is gone.
        """
        silent_s = seconds_since_boot() - self._last_beat
        if silent_s > self._lease_s / 2:
            self._attempt.count_out(f"no heartbeat for {silent_s:.0f} s")
        return self._attempt.lost is None

    def stop(self) -> None:
        """Beat no more; returns when the thread has ended."""
        self._over.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Beat until told to stop, or until there is nothing left to hold."""
        counter, silent_s, seen = 0, 0.0, -1
        beat_at = ticked_at = time.monotonic()
        beat_s = min(FIRST_BEAT_S, self._beat_s)
        tick_s = beat_s / 2
        while not self._over.wait(tick_s) and self._attempt.lost is None:
            now = time.monotonic()
            # A gap in this thread's own time, from a stopped process, is not silence of the training.
            silent_s += min(now - ticked_at, 2 * tick_s)
            ticked_at = now
            if self._advances != seen:
                seen, silent_s = self._advances, 0.0
            if silent_s > self._stall_s:
                self._give_up_stuck()
                return
            self.cancelled = self.cancelled or self._ask_cancelled()
            if now - beat_at >= beat_s:
                counter, beat_at = counter + 1, now
                self._beat(counter)
                beat_s = min(2 * beat_s, self._beat_s)
                tick_s = beat_s / 2

    def _beat(self, counter: int) -> None:
        now = seconds_since_boot()  # taken before the write: an observer cannot have seen it earlier
        record = {
            "counter": counter,
            "first_step": self._first_step or 0,
            "step": self.step,
            "elapsed_s": round(now - self._began, 3),
        }
        try:
            self._attempt.beat(record)
            written = True
        except OSError:  # perhaps it passes; if not, `holds` says so in time
            written = False
        if self._attempt.confirm() and written:
            self._last_beat = now

    def _give_up_stuck(self) -> None:
        """End the attempt for the training thread, which is silent; then give it one lease to return."""
        reason = f"no step for {self._stall_s:.0f} s"
        self._attempt.count_out(reason)
        with contextlib.suppress(OSError):
            self._attempt.end("failed:host", reason, self.step)
        if not self._over.wait(self._lease_s):
            self._on_stuck()
