"""How a worker is asked to stop: by a signal, or by the death of the supervisor that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopFlag:
    """Set once, by whatever asks the worker to stop; read by everything else."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """Ask the worker to stop. Safe in a signal handler: it only assigns."""
        self.reason = self.reason or reason


class _Hold:
    """A handler that only takes note: of what comes before anybody hears it."""

    def __init__(self) -> None:
        self.received: set[int] = set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received.add(number)


def hold_stop_signals() -> None:
    """For a worker's whole process: stop signals wait for `stopped_by_signals`; after it they do nothing.

    Else one that comes before would end the process or be lost, and one that comes while the process ends
    would replace the exit code that says all is saved. Dispositions are the whole process's: a mask would be
    one thread's, and libraries start others.
    """
    hold = _Hold()
    for number in STOP_SIGNALS:
        signal.signal(number, hold)


@contextlib.contextmanager
def stopped_by_signals(stop: StopFlag) -> Iterator[set[int]]:
    """Within, SIGTERM, SIGINT and SIGUSR1 set `stop` and do nothing else, however often they come.

    Yields the signals that came so far, those held before among them. Only the main thread can receive
    signals; in any other this changes nothing.
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
    """Set `stop` when the supervisor dies: it holds the other end of our standard input and never writes."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        stop.set("the supervisor is gone")

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
