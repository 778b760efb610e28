"""Interface between a training run and its worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweep.launch.process import Deadline, StopFlag
from sweep.store.attempts.active import ActiveAttempt
from sweep.store.attempts.heartbeat import Heartbeat
from sweep.tracking.base import GuardedTracker

if TYPE_CHECKING:
    from sweep.worker.outliers import OutlierWatch


class Session:
    """The TrainSession of one attempt. Only `log` does I/O."""

    def __init__(
        self,
        attempt: ActiveAttempt,
        heartbeat: Heartbeat,
        stop: StopFlag,
        deadline: Deadline,
        tracker: GuardedTracker,
        watch: OutlierWatch | None = None,
    ) -> None:
        self.checkpoint_dir = attempt.checkpoint_dir
        self._deadline = deadline
        self._tracker, self._watch = tracker, watch
        self._attempt, self._heartbeat, self._stop = attempt, heartbeat, stop

    def should_stop(self) -> bool:
        """Return True on a signal, on a cancel, at the deadline, and when the attempt was lost."""
        if self._deadline.passed():
            self._stop.set("the time limit of this worker has been reached")
        return self._stop.reason is not None or self._heartbeat.cancelled or not self._heartbeat.holds()

    def progress(self, step: int) -> None:
        """Report to the heartbeat that `step` steps are done."""
        self._heartbeat.advanced(step)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to the attempt's metrics.jsonl. Raises Outlier where outliers are stopped."""
        self._attempt.log(record)
        self._tracker.log(record)
        if self._watch is not None:
            self._watch.check(record)
