"""A launcher that trains in the calling process."""

from __future__ import annotations

from pathlib import Path

from sweep.launch.base import LaunchState
from sweep.worker.__main__ import work
from tests import toy_trainer


class InProcess:
    """A launcher whose only worker is this process, with the toy trainer; subclasses may train otherwise."""

    def __init__(self, launch, spec):
        self._sweep_dir = Path(spec.sweep_dir)

    def train(self, run, placement, session):
        return toy_trainer.train(run, placement, session)

    def start(self):
        work(self._sweep_dir, train=self.train)

    def wait(self, timeout_s):
        return LaunchState(n_running=0, n_restarts=0, stopped=False, gave_up=None)

    def stop(self):
        pass
