"""The worker, `python -m sweep.worker DIR`: claim, train, commit, next, until the sweep has nothing left.

It takes the train function as an argument and imports no torch itself, so what it promises about claims,
signals and commits holds, and is tested, for any train function.
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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from sweep.machine.environment import N_THREADS, count_of
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
from sweep.worker.placement import check_data, placement
from sweep.worker.session import Session

MIN_WAIT_S, MAX_WAIT_S = 0.05, 1.0  # between two looks at runs that others hold
WAIT_FRAC = 0.1  # of the time waited so far: what a look may come too late


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSummary:
    """What one worker did, attempt by attempt, and how it left."""

    n_done: int = 0
    n_diverged: int = 0
    n_preempted: int = 0
    n_failed: int = 0
    n_lost: int = 0  # attempts others took over; whatever they had was discarded
    interrupted: bool = False  # left on a signal or a cancel, with work to do


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
        """Carry out runs until every one is finished, or until asked to stop."""
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
        """The next free run; where workers share a device, one that fits beside what they hold of it."""
        if self._admission is None:
            return self._queue.claim()
        with self._admission.alone() as free_bytes:
            claimed = self._queue.claim(free_bytes)
            if claimed is not None:
                self._admission.hold(claimed[0].memory_bytes)
        return claimed

    def _asked_to_stop(self) -> bool:
        if self._deadline.too_near_to_claim():
            self._stop.set("too little time is left to begin a run")
        return self._stop.reason is not None or self._store.cancelled()

    def _carry_out(self, entry: PlanEntry, attempt: ActiveAttempt) -> str:
        """One attempt from claim to end; returns the state it ended in."""
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
        # A full disk may refuse even this: then the attempt expires instead.
        with contextlib.suppress(OSError):
            attempt.end(state, reason, heartbeat.step)
        return state

    def _outcome(
        self, entry: PlanEntry, attempt: ActiveAttempt, heartbeat: Heartbeat
    ) -> tuple[str, str | None]:
        """Train and commit. Returns the state to record and the reason for it."""
        try:
            result = self._train_and_commit(entry, attempt, heartbeat)
        except Interrupted:
            reason = self._stop.reason or ("the sweep was cancelled" if heartbeat.cancelled else None)
            return "preempted", reason
        except AttemptLost as error:
            attempt.mark_lost(str(error))
            return "lost", str(error)
        except (Exception, SystemExit) as error:
            if not (heartbeat.holds() and attempt.confirm()):  # most likely the reason of the error
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
            session = Session(attempt, heartbeat, self._stop, self._deadline, tracker)
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

    @contextlib.contextmanager
    def _tracked(self, entry: PlanEntry, config: RunConfig) -> Iterator[GuardedTracker]:
        """A tracker that is closed in any case; without a point unless one was committed."""
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
        # The finish is the start plus a duration: a wall clock set back in between cannot precede it.
        finished_at = started_at + timedelta(seconds=time.monotonic() - started)
        execution = Execution(
            attempt=attempt.number,
            started_at=started_at.isoformat(timespec="milliseconds"),
            finished_at=finished_at.isoformat(timespec="milliseconds"),
        )
        return result_payload(config, result, execution)

    def _leave_lost(self, attempt: ActiveAttempt, heartbeat: Heartbeat) -> str:
        """Free a run we counted ourselves out of at once, where nobody has taken it over or ended it yet."""
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

    `on_stuck` is called, from another thread, when a run has been silent for so long that it was given to
    others. No run is begun that could neither end nor save before SWEEP_DEADLINE. Raises InputError when
    `sweep_dir` holds no plan, and for a variable of ours that is no number.
    """
    stop = stop or StopFlag()
    code_version()  # of the code that is loaded now: the sources may be edited while we work
    count_of(os.environ, N_THREADS)  # a bad number is the worker's fault, and must not end runs as failed
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
    """End a process whose training thread does not come back: only a new process can go on."""
    sys.stderr.write("a run is stuck: this worker ends itself\n")
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
    check_data(RunStore(sweep_dir))
    gc.disable()  # what is imported stays: it is looked through for garbage neither now nor before every run
    try:
        from sweep.train.loop import train  # torch takes seconds to import, and tests bring their own

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
    sys.stderr.write(f"{asdict(summary)}\n")
    if summary.interrupted:
        return EXIT_STOPPED
    return EXIT_FAILED if RunStore(sweep_dir).status().n_failed else 0


if __name__ == "__main__":
    hold_stop_signals()
    sys.exit(main())
