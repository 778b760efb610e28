"""Stop signals around what hears them: none is lost before, none changes the end of a process after."""

import signal
import subprocess
import sys

import pytest

PROCESS = """
import os, signal, subprocess, sys
from sweep.launch.stopping import StopFlag, hold_stop_signals, stopped_by_signals

hold_stop_signals()
os.kill(os.getpid(), signal.{name})
stop = StopFlag()
with stopped_by_signals(stop) as received:
    print(stop.reason, received == {{signal.{name}}})
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.{name})
    print(child.wait())
os.kill(os.getpid(), signal.{name})
sys.exit(75)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_before_is_heard_and_one_after_does_nothing(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(name=name)], capture_output=True, text=True, timeout=60
    )
    child = -getattr(signal, name)
    assert (done.returncode, done.stdout) == (75, f"stopped by {name} True\n{child}\n"), done.stderr
