"""Real worker processes that start in milliseconds, for tests that kill them."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from sweep.launch.process import hold_stop_signals
from sweep.worker.__main__ import main
from tests import toy_trainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.processes"])


def start_worker(sweep_dir: Path, **environment: str) -> BaseProcess:
    """Start a worker process with the toy trainer; its exit code is the worker's."""
    return start(_work, sweep_dir, environment)


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    process = CONTEXT.Process(target=target, args=args)
    process.start()
    return process


def _work(sweep_dir: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    hold_stop_signals()
    os._exit(main([str(sweep_dir)], train=toy_trainer.train))


def kill(*processes: BaseProcess) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not reached in time"
        time.sleep(0.01)
