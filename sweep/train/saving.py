"""When a run's state is saved, so that saving costs next to nothing of the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sweep.train.checkpoint import Checkpoint, save_checkpoint

MAX_SAVING_FRAC = 0.02  # of the time between two checkpoints may go into saving one
ASSUMED_BYTES_PER_SECOND = 2e8  # of the first one, before there is a measurement: a slow disk, hashed twice


class Saver:
    """Saves into one directory, `interval_s` apart at least, longer where saving takes long."""

    def __init__(self, directory: Path, interval_s: float, n_bytes: int) -> None:
        """`n_bytes` is about what one checkpoint will hold."""
        self._directory, self._interval_s = directory, interval_s
        self._saved_at = time.monotonic()
        self._wait_s = self._wait(n_bytes / ASSUMED_BYTES_PER_SECOND)

    def due(self) -> bool:
        """Whether it is time to save. Reads a clock."""
        return time.monotonic() - self._saved_at > self._wait_s

    def save(self, state: Callable[[], Checkpoint]) -> None:
        """Collect the state and write it. Raises OSError as `save_checkpoint` does."""
        begun = time.monotonic()
        save_checkpoint(self._directory, state())
        self._saved_at = time.monotonic()
        self._wait_s = self._wait(self._saved_at - begun)

    def _wait(self, saving_s: float) -> float:
        return max(self._interval_s, saving_s / MAX_SAVING_FRAC)
