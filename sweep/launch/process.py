"""Life cycle of a worker or supervisor process: stop requests, time limit and exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

from sweep.credentials import redact
from sweep.errors import EXIT_BUG, EXIT_FAILED, SweepError
from sweep.machine.environment import number_of

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

DEADLINE_VARIABLE = "SWEEP_DEADLINE"
"""Environment variable: time at which a worker starts to save and exit, in seconds since 1970."""

MIN_CLAIM_VARIABLE = "SWEEP_MIN_CLAIM_S"
"""Environment variable: with less time than this left, in seconds, a worker claims no run."""

DEFAULT_MIN_CLAIM_S = 60.0


class StopFlag:
    """A stop request with its reason; the first one set is kept."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """Request a stop. Safe in a signal handler: it only assigns."""
        self.reason = self.reason or reason


class _Hold:
    """A signal handler that only records signals."""

    def __init__(self) -> None:
        self.received: set[int] = set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received.add(number)


def hold_stop_signals() -> None:
    """Record stop signals until `stopped_by_signals` handles them; ignore them after it.

    Without it, a signal during start-up would end the process, and a signal during shutdown would replace the
    exit code which says that the state was saved. Handlers apply to the whole process; a signal mask would
    apply to one thread only, and libraries start others.
    """
    hold = _Hold()
    for number in STOP_SIGNALS:
        signal.signal(number, hold)


@contextlib.contextmanager
def stopped_by_signals(stop: StopFlag) -> Iterator[set[int]]:
    """Have SIGTERM, SIGINT and SIGUSR1 set `stop`, and do nothing else, within the block.

    Yields the set of signals received so far, including those that `hold_stop_signals` recorded. Only the
    main thread can handle signals; in any other thread this changes nothing.
    """
    received: set[int] = set()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> None:
        received.add(number)
        stop.set(f"stopped by {signal.Signals(number).name}")

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    for number, handler in before.items():
        if isinstance(handler, _Hold) and number in handler.received:
            handle(number, None)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if isinstance(handler, _Hold) else handler)


def stop_with_supervisor(stop: StopFlag) -> None:
    """Set `stop` when the supervisor dies: it holds the other end of standard input and never writes."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        stop.set("the supervisor is gone")

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()


def exit_code(work: Callable[[], int]) -> int:
    """Return the exit code of `work`, or that of the error it raises (design.md, Verbs).

    Errors of sweep and of the system write their message to stderr, bugs a traceback; secrets are redacted.
    """
    try:
        return work()
    except (SweepError, OSError) as error:
        sys.stderr.write(f"{redact(str(error))}\n")
        return error.exit_code if isinstance(error, SweepError) else EXIT_FAILED
    except Exception:
        sys.stderr.write(redact(traceback.format_exc()))
        return EXIT_BUG


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadline:
    """A worker's time limit, read from SWEEP_DEADLINE; None: no limit.

    Kept on the monotonic clock, so that later changes of the wall clock have no effect.
    """

    stop_at: float | None = None  # time.monotonic()
    min_claim_s: float = DEFAULT_MIN_CLAIM_S

    @property
    def left_s(self) -> float:
        """Seconds until the worker must start to save."""
        return float("inf") if self.stop_at is None else self.stop_at - time.monotonic()

    def passed(self) -> bool:
        """Return True once the worker must save and exit."""
        return self.stop_at is not None and time.monotonic() >= self.stop_at

    def too_near_to_claim(self) -> bool:
        """Return True if a run claimed now might neither finish nor reach a checkpoint."""
        return self.left_s < self.min_claim_s


def read_deadline(environ: Mapping[str, str] = os.environ) -> Deadline:
    """Read the deadline from the environment. Raises InputError if a value is not a number."""
    stop_at, min_claim_s = number_of(environ, DEADLINE_VARIABLE), number_of(environ, MIN_CLAIM_VARIABLE)
    return Deadline(
        stop_at=None if stop_at is None else time.monotonic() + stop_at - time.time(),
        min_claim_s=DEFAULT_MIN_CLAIM_S if min_claim_s is None else min_claim_s,
    )
