"""Stop signals: none is lost before the handlers are installed, none changes the exit code after them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.processes import wait_until
from tests.shell import ROOT, environment
from tests.toy_trainer import toy_sweep

PROCESS = """
import os, signal, subprocess, sys, threading, time
from sweep.launch.process import StopFlag, hold_stop_signals, stopped_by_signals

def another_thread():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

another_thread()
hold_stop_signals()
os.kill(os.getpid(), signal.{name})
stop = StopFlag()
with stopped_by_signals(stop) as received:
    another_thread()
    print(stop.reason, received == {{signal.{name}}})
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.{name})
    print(child.wait())
    with stopped_by_signals(StopFlag()):
        pass
    os.kill(os.getpid(), signal.{name})
os.kill(os.getpid(), signal.{name})
sys.exit(75)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_before_is_heard_and_one_after_does_nothing(name: str) -> None:
    """Whichever thread the kernel delivers it to."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(name=name)], capture_output=True, text=True, timeout=60
    )
    child = -getattr(signal, name)
    assert (done.returncode, done.stdout) == (75, f"stopped by {name} True\n{child}\n"), done.stderr


@pytest.mark.parametrize("n_threads", [pytest.param(1, marks=pytest.mark.ci), 2])
def test_a_worker_under_repeated_sigterm_exits_with_its_state_saved(tmp_path: Path, n_threads: int) -> None:
    """Also with threads of libraries, which may receive the signals."""
    store = toy_sweep(tmp_path / "sweep", 1, n_steps=500)
    environ = environment() | {"OPENBLAS_NUM_THREADS": str(n_threads), "TOY_STEP_S": "0.02"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.toy_trainer", store.sweep_dir],
        env=environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: store.status().counts == {"running": 1})
    while worker.poll() is None:
        worker.terminate()
        time.sleep(0.001)
    assert worker.returncode == 75
    assert store.status().counts == {"preempted": 1}
