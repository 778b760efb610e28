"""The worker: claims runs, trains them and commits points until none is left. `python -m sweep.worker DIR`

The train function is an argument and torch is not imported here, so that claims, signals and commits are
tested with any train function.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config import RunConfig, to_dict
from sweep.credentials import redact
from sweep.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_FAILED, EXIT_STOPPED, Interrupted
from sweep.identity import code_version
from sweep.launch.base import RETRY_GROUP_VARIABLE
from sweep.launch.process import (
    Deadline,
    StopFlag,
    exit_code,
    hold_stop_signals,
    read_deadline,
    stop_with_supervisor,
    stopped_by_signals,
)
from sweep.machine.admission import Admission, admission_from
from sweep.machine.environment import N_THREADS, count_of, open_closed_streams
from sweep.records import RunResult, TrackedRun, TrainFunction
from sweep.store.attempts.active import ActiveAttempt, AttemptLost
from sweep.store.attempts.failures import classify
from sweep.store.attempts.heartbeat import Heartbeat
from sweep.store.files import write_atomic
from sweep.store.plans import PlanEntry
from sweep.store.points import Execution, result_payload
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import IndexWriter
from sweep.tracking.base import GuardedTracker, track
from sweep.worker.placement import check_data_visible, placement
from sweep.worker.session import Session

if TYPE_CHECKING:
    from sweep.worker.outliers import OutlierWatch

MIN_WAIT_S, MAX_WAIT_S = 0.05, 1.0  # between two polls for a free run
WAIT_FRAC = 0.1  # interval of polls over the time waited so far


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSummary:
    """Attempts of one worker by outcome."""

    n_done: int = 0
    n_diverged: int = 0
    n_preempted: int = 0
    n_failed: int = 0
    n_lost: int = 0  # attempts that other workers took over; their state was discarded
    interrupted: bool = False  # stopped by a signal, a cancel or the deadline with runs left

    def __str__(self) -> str:
        counts = {
            "done": self.n_done,
            "diverged": self.n_diverged,
            "saved for later": self.n_preempted,
            "failed": self.n_failed,
            "lost to other workers": self.n_lost,
        }
        attempts = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        end = ", stopped with runs left" if self.interrupted else ""
        return f"worker: {attempts or 'no attempts'}{end}"


class Worker:
    """One worker of one sweep."""

    def __init__(
        self,
        store: RunStore,
        train: TrainFunction,
        *,
        worker_id: str,
        stop: StopFlag,
        deadline: Deadline,
        on_stuck: Callable[[], None],
        admission: Admission | None = None,
    ) -> None:
        self._store, self._train, self._admission = store, train, admission
        self._stop, self._deadline, self._on_stuck = stop, deadline, on_stuck
        self._queue = store.queue(worker_id)
        self._index = IndexWriter(store.sweep_dir)
        self._counts = dict.fromkeys(("done", "diverged", "preempted", "failed", "lost"), 0)

    def work(self) -> WorkerSummary:
        """Execute runs until all are finished, or until asked to stop."""
        idle_since, interrupted = time.monotonic(), True
        while not self._asked_to_stop():
            claimed = self._claim()
            if claimed is not None:
                try:
                    ended = self._carry_out(*claimed)
                finally:
                    if self._admission is not None:
                        self._admission.release()
                self._queue.prune_trunk(claimed[0])
                self._counts[ended.partition(":")[0]] += 1
                idle_since = time.monotonic()
            elif self._queue.finished:
                interrupted = False
                break
            else:
                waited_s = time.monotonic() - idle_since
                time.sleep(min(MAX_WAIT_S, max(MIN_WAIT_S, WAIT_FRAC * waited_s)))
        self._index.close()
        return WorkerSummary(
            **{f"n_{state}": n for state, n in self._counts.items()}, interrupted=interrupted
        )

    def _claim(self) -> tuple[PlanEntry, ActiveAttempt] | None:
        """Claim the next free run; on a shared device, one that fits in the remaining memory."""
        if self._admission is None:
            return self._queue.claim()
        with self._admission.alone() as free_bytes:
            claimed = self._queue.claim(free_bytes)
            if claimed is not None:
                self._admission.hold(claimed[0].memory_bytes)
        return claimed

    def _asked_to_stop(self) -> bool:
        if self._deadline.too_near_to_claim():
            self._stop.set("too little time is left to start a run")
        return self._stop.reason is not None or self._store.cancelled()

    def _carry_out(self, entry: PlanEntry, attempt: ActiveAttempt) -> str:
        """Execute one attempt from claim to end; return the state it ended in."""
        launch = entry.experiment.launch
        heartbeat = Heartbeat(
            attempt,
            lease_s=launch.lease_s,
            stall_s=launch.stall_s,
            cancelled=self._store.cancelled,
            on_stuck=self._on_stuck,
        )
        heartbeat.start()
        try:
            state, reason = self._outcome(entry, attempt, heartbeat)
        finally:
            heartbeat.stop()
        if attempt.lost is not None:
            return self._leave_lost(attempt, heartbeat)
        # if this write fails too, as on a full disk, the attempt expires
        with contextlib.suppress(OSError):
            attempt.end(state, reason, heartbeat.step)
        return state

    def _outcome(
        self, entry: PlanEntry, attempt: ActiveAttempt, heartbeat: Heartbeat
    ) -> tuple[str, str | None]:
        """Train and commit; return the state to record and its reason."""
        try:
            result = self._train_and_commit(entry, attempt, heartbeat)
        except Interrupted:
            reason = self._stop.reason or ("the sweep was cancelled" if heartbeat.cancelled else None)
            return "preempted", reason
        except AttemptLost as error:
            attempt.mark_lost(str(error))
            return "lost", str(error)
        except (Exception, SystemExit) as error:
            if not (
                heartbeat.holds() and attempt.confirm()
            ):  # the loss of the attempt most likely caused the error
                return "lost", attempt.lost
            state, reason = classify(error)
            with contextlib.suppress(OSError):
                write_atomic(
                    attempt.path / "error.txt", redact(traceback.format_exc()).encode(), durable=False
                )
            return state, redact(reason)
        return result.status, result.reason

    def _train_and_commit(self, entry: PlanEntry, attempt: ActiveAttempt, heartbeat: Heartbeat) -> RunResult:
        started_at, started = datetime.now(UTC), time.monotonic()
        config = self._store.run_config(entry.run_key)
        attempt.inherit_checkpoint()
        with self._tracked(entry, config) as tracker:
            watch = self._watch(entry, config)
            session = Session(attempt, heartbeat, self._stop, self._deadline, tracker, watch)
            where = replace(placement(entry), trunk=self._queue.trunk(entry))
            result = self._train(config, where, session)
            payload = self._payload(config, result, attempt, started_at, started)
            if not heartbeat.holds():
                raise AttemptLost(attempt.lost)
            attempt.commit(payload)
            self._index.offer(entry)
            if not where.keep_checkpoint:
                attempt.drop_checkpoint()
            tracker.finish(payload["point"])
        return result

    def _watch(self, entry: PlanEntry, config: RunConfig) -> OutlierWatch | None:
        if not entry.experiment.trainer.stop_outliers:
            return None
        from sweep.worker.outliers import OutlierWatch  # imports numpy and the fit package

        return OutlierWatch(self._store, config)

    @contextlib.contextmanager
    def _tracked(self, entry: PlanEntry, config: RunConfig) -> Iterator[GuardedTracker]:
        """Yield a tracker that is always closed, without a point unless one was committed."""
        tracked = TrackedRun(
            sweep_dir=self._store.sweep_dir,
            sweep_name=entry.experiment.name,
            run_key=entry.run_key,
            run_name=config.name,
            config=to_dict(config),
        )
        tracker = track(entry.experiment.tracking, tracked)
        try:
            yield tracker
        finally:
            tracker.finish(None)

    @staticmethod
    def _payload(
        config: RunConfig, result: RunResult, attempt: ActiveAttempt, started_at: datetime, started: float
    ) -> dict[str, Any]:
        # start plus a monotonic duration, so that a clock set back cannot put the finish before the start
        finished_at = started_at + timedelta(seconds=time.monotonic() - started)
        execution = Execution(
            attempt=attempt.number,
            started_at=started_at.isoformat(timespec="milliseconds"),
            finished_at=finished_at.isoformat(timespec="milliseconds"),
        )
        return result_payload(config, result, execution)

    def _leave_lost(self, attempt: ActiveAttempt, heartbeat: Heartbeat) -> str:
        """End a lost attempt, which frees its run at once, unless another worker has ended it."""
        if not (attempt.path / "end.json").exists():
            with contextlib.suppress(OSError):
                attempt.end("lost", attempt.lost, heartbeat.step)
        return "lost"


def work(
    sweep_dir: Path | str,
    *,
    train: TrainFunction,
    worker_id: str | None = None,
    stop: StopFlag | None = None,
    on_stuck: Callable[[], None] = lambda: None,
) -> WorkerSummary:
    """Join a sweep and train its runs until none is left, or until a signal, a cancel or `stop`.

    `on_stuck` is called from another thread when a run made no progress for so long that it was released to
    other workers. No run starts that could neither end nor save before SWEEP_DEADLINE. Raises InputError when
    `sweep_dir` contains no plan, and for an invalid number in an environment variable of sweep.
    """
    stop = stop or StopFlag()
    code_version()  # cached now, since sources may be edited while the worker runs
    count_of(os.environ, N_THREADS)  # an invalid number is an error of the worker, not of its runs
    worker = Worker(
        RunStore(sweep_dir, retry_group=os.environ.get(RETRY_GROUP_VARIABLE)),
        train,
        worker_id=worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        stop=stop,
        deadline=read_deadline(),
        on_stuck=on_stuck,
        admission=admission_from(os.environ),
    )
    with stopped_by_signals(stop):
        return worker.work()


def _exit_stuck() -> None:
    """Exit the process when its training thread hangs; only a new process can continue."""
    sys.stderr.write("a run is stuck: this worker exits\n")
    sys.stderr.flush()
    os._exit(EXIT_BUG)


def main(argv: Sequence[str] | None = None, *, train: TrainFunction | None = None) -> int:
    """Join the sweep in `argv`; returns the exit code (design.md, Verbs)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m sweep.worker DIR\n")
        return EXIT_BAD_INPUT
    stop = StopFlag()
    if os.environ.get("SWEEP_SUPERVISED"):
        stop_with_supervisor(stop)
    with stopped_by_signals(stop):
        return exit_code(lambda: _join(Path(arguments[0]), train, stop))


def _train_loop(sweep_dir: Path) -> TrainFunction:
    check_data_visible(RunStore(sweep_dir))
    gc.disable()  # imported modules stay: exclude them from all garbage collections
    try:
        from sweep.train.loop import train  # imports torch, which takes seconds; tests pass their own

        gc.freeze()
    finally:
        gc.enable()
    return train


def _join(sweep_dir: Path, train: TrainFunction | None, stop: StopFlag) -> int:
    summary = work(
        sweep_dir,
        train=train or _train_loop(sweep_dir),
        worker_id=os.environ.get("SWEEP_WORKER_ID"),
        stop=stop,
        on_stuck=_exit_stuck,
    )
    sys.stderr.write(f"{summary}\n")
    if summary.interrupted:
        return EXIT_STOPPED
    return EXIT_FAILED if RunStore(sweep_dir).status().n_failed else 0


if __name__ == "__main__":
    open_closed_streams()
    hold_stop_signals()
    sys.exit(main())
