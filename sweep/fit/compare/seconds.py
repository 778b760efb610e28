"""Training seconds of an arm as a power law of compute and size, where the runs carry them.

Legend: C training FLOPs, N parameters, T training seconds = tokens over tokens per second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.compare.arms import Arm, ArmMinima, by_label

FloatArray = npt.NDArray[np.float64]

NO_SECONDS = "no seconds: some run has no tokens_per_second or device"
MIN_RUNS = 5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingTime:
    """ln T = c0 + c1 (ln C - centre) + c2 (ln N - centre), fitted to the runs of an arm."""

    center: FloatArray  # (2,) of ln C and ln N
    coefficients: FloatArray  # (1, 3)
    draws: FloatArray  # (k, 3)

    def log_seconds(self, log_c: FloatArray, log_n: FloatArray, *, drawn: bool) -> FloatArray:
        """Return ln T at ln C and ln N of shape (k, m), for the estimate (k = 1) or for every draw."""
        c = self.draws if drawn else self.coefficients
        x, y = log_c - self.center[0], log_n - self.center[1]
        found: FloatArray = c[:, :1] + c[:, 1:2] * x + c[:, 2:] * y
        return found


def training_times(
    a: Arm, b: Arm, minima_a: ArmMinima, minima_b: ArmMinima, n_draws: int, seed: int
) -> tuple[TrainingTime, TrainingTime] | str:
    """Return the training times of both arms, or the reason why seconds are not compared."""
    runs = [_runs(arm, minima) for arm, minima in ((a, minima_a), (b, minima_b))]
    if any(run[2] is None or run[3] is None for arm in runs for run in arm):
        return NO_SECONDS
    devices = sorted({str(run[3]) for arm in runs for run in arm})
    if len(devices) > 1:
        return f"no seconds: the runs were trained on different devices ({', '.join(devices)})"
    rng = np.random.default_rng(seed + 1)
    one, other = (_fit(np.array([run[:3] for run in arm], dtype=np.float64), n_draws, rng) for arm in runs)
    if one is None or other is None:
        return f"no seconds: an arm has fewer than {MIN_RUNS} runs"
    return one, other


def _runs(arm: Arm, minima: ArmMinima) -> list[tuple[float, float, float | None, str | None]]:
    """Return C, N, T and the device of every compared run."""
    observed, points = minima.observations, by_label(arm.points)
    found = []
    for at, label in enumerate(observed.labels):
        speed = points[label].tokens_per_second
        seconds = float(observed.n_tokens[at]) / speed if speed else None
        found.append((float(observed.flops[at]), float(observed.n_params[at]), seconds, points[label].device))
    return found


def _fit(table: FloatArray, n_draws: int, rng: np.random.Generator) -> TrainingTime | None:
    """Fit by least squares; draws are Student's t."""
    if len(table) < MIN_RUNS:
        return None
    logs = np.log(table)
    center = logs[:, :2].mean(axis=0)
    design = np.column_stack([np.ones(len(logs)), logs[:, :2] - center])
    inverse = np.linalg.pinv(design)
    coefficients = inverse @ logs[:, 2]
    n_dof = len(logs) - 3
    variance = float(((logs[:, 2] - design @ coefficients) ** 2).sum()) / n_dof
    t = np.sqrt(n_dof / rng.chisquare(n_dof, n_draws))[:, None]
    noise = rng.standard_normal((n_draws, len(logs))) * math.sqrt(variance)
    return TrainingTime(
        center=center, coefficients=coefficients[None], draws=coefficients + t * (noise @ inverse.T)
    )
