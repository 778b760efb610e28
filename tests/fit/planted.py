"""Synthetic data sets of a known law: a surface, a FLOP convention, a grid, and noise on ln L."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.records import Point

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PlantedLaw:
    """L = E + A / N^alpha + B / D^beta, written out plainly as an oracle."""

    E: float = 1.69
    A: float = 406.4
    B: float = 410.7
    alpha: float = 0.34
    beta: float = 0.28

    def loss(self, n_params: float, n_tokens: float) -> float:
        return self.E + self.A / n_params**self.alpha + self.B / n_tokens**self.beta

    def optimum_6nd(self, flops: float) -> tuple[float, float]:
        """N and D of least loss at C = 6 N D (Hoffmann et al. 2022, eq. 4)."""
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        n_params = g * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return n_params, flops / (6 * n_params)

    def optimum_by_search(self, flops: float, flops_per_token: Callable[[float], float]) -> float:
        """N of least loss with D f(N) = C, by golden section on ln N: slow, and shares nothing with sweep."""
        low, high = math.log(1e2), math.log(1e14)
        golden = (math.sqrt(5) - 1) / 2
        for _ in range(200):
            left, right = high - golden * (high - low), low + golden * (high - low)
            if self._at(left, flops, flops_per_token) < self._at(right, flops, flops_per_token):
                high = right
            else:
                low = left
        return math.exp(0.5 * (low + high))

    def _at(self, log_n: float, flops: float, flops_per_token: Callable[[float], float]) -> float:
        return self.loss(math.exp(log_n), flops / flops_per_token(math.exp(log_n)))


TINY = PlantedLaw(E=1.0, A=40.0, B=300.0, alpha=0.40, beta=0.37)
"""Of the size of a CPU sweep: its minima lie at 6e3 to 6e4 parameters for 1e11 to 1e13 FLOPs."""


def six_n(n_params: float) -> float:
    return 6 * n_params


def tiny_flops_per_token(n_params: float) -> float:
    """A decoder with two layers, 1024 tokens of vocabulary and 64 positions, for any width (tied head)."""
    width = (-1024 + math.sqrt(1024**2 + 96 * n_params)) / 48  # 24 d^2 + 1024 d = N
    return 6 * n_params + 1536 * width


def isoflop_points(
    law: PlantedLaw,
    budgets: Sequence[float],
    *,
    n_sizes: int,
    span: float,
    flops_per_token: Callable[[float], float] = six_n,
    offset: float = 1.0,
    n_seeds: int = 1,
    sd: float = 0.0,
    rng: np.random.Generator | None = None,
    with_tokens: bool = True,
    labelled: bool = False,
) -> tuple[Point, ...]:
    """A grid of `n_sizes` log-spaced N from optimum * offset / span to optimum * offset * span per budget.

    `sd` is the noise of ln L; without `with_tokens` the table gives C only; `labelled` adds flops_budget.
    """
    points = []
    for budget in budgets:
        center = math.log(offset * law.optimum_by_search(budget, flops_per_token))
        for log_n in np.linspace(center - math.log(span), center + math.log(span), n_sizes):
            n_params = math.exp(log_n)
            n_tokens = budget / flops_per_token(n_params)
            for seed in range(n_seeds):
                noise = 0.0 if rng is None else sd * rng.standard_normal()
                points.append(
                    Point(
                        n_params=n_params,
                        n_tokens=n_tokens if with_tokens else None,
                        flops=budget,
                        flops_budget=budget if labelled else None,
                        loss=law.loss(n_params, n_tokens) * math.exp(noise),
                        seed=seed,
                    )
                )
    return tuple(points)
