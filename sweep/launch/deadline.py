"""How much time a worker has: told by its launcher, where what it runs on is lent for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sweep.machine.environment import number_of

STOP_AT = "SWEEP_DEADLINE"
"""Environment variable: when a worker begins to save and leave, in seconds since 1970."""

MIN_CLAIM_S = "SWEEP_MIN_CLAIM_S"
"""Environment variable: with less time left than this no run is begun."""

DEFAULT_MIN_CLAIM_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadline:
    """When a worker leaves by itself; None: never. Only durations count once it is read."""

    stop_at: float | None = None  # of time.monotonic()
    min_claim_s: float = DEFAULT_MIN_CLAIM_S

    @property
    def left_s(self) -> float:
        """Seconds until the worker must begin to save."""
        return float("inf") if self.stop_at is None else self.stop_at - time.monotonic()

    def passed(self) -> bool:
        """Whether it is time to save and leave."""
        return self.stop_at is not None and time.monotonic() >= self.stop_at

    def too_near_to_claim(self) -> bool:
        """Whether a run begun now might neither end nor get as far as a checkpoint."""
        return self.left_s < self.min_claim_s


def read_deadline(environ: Mapping[str, str] = os.environ) -> Deadline:
    """The deadline that the environment tells. Raises InputError when it is no number."""
    stop_at, min_claim_s = number_of(environ, STOP_AT), number_of(environ, MIN_CLAIM_S)
    return Deadline(
        stop_at=None if stop_at is None else time.monotonic() + stop_at - time.time(),
        min_claim_s=DEFAULT_MIN_CLAIM_S if min_claim_s is None else min_claim_s,
    )
