"""Measures the intervals of `sweep compare` on planted pairs of arms.

Usage: python -m scripts.benchmarks.compare_coverage [--pairs N]

Arm A follows a planted surface; B is the same surface with k times the compute, ln k linear in ln C with
slope `delta`. Runs with equal budget, size and seed share a part of their noise, `correlation`. Prints, at
the smallest and the largest budget and at 10 times the largest, the coverage of ln k by 90 % intervals, their
mean width over the 90 % spread of the estimates (Monte Carlo), and the width without pairing over that with
it.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.compare.arms import Arm, arm_minima, pair
from sweep.fit.compare.multiplier import fit_jointly
from sweep.records import Point

FloatArray = npt.NDArray[np.float64]
CONFIDENCE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Plant:
    """A planted pair of arms: L = E + A / N^alpha + B / D^beta at C = 6 N D, and the grid of both."""

    name: str
    multiplier: float = 1.3  # of B over A at the mean of ln C
    delta: float | None = 0.0  # slope of ln k in ln C; None: drawn from N(0, .05) for each pair
    correlation: float = 0.5  # of the noise of matching runs
    sd: float = 0.004  # of ln L
    budgets: tuple[float, ...] = tuple(np.geomspace(1e11, 1.6e12, 5))
    n_sizes: int = 6
    n_seeds: int = 2
    span: float = 3.0
    shift: float = 1.0  # factor on the sizes of B: other than 1, no run has a match
    surface: tuple[float, float, float, float, float] = (1.0, 40.0, 300.0, 0.40, 0.37)  # E, A, B, alpha, beta

    @property
    def center(self) -> float:
        """Mean of ln C."""
        return float(np.log(self.budgets).mean())

    def log_multiplier(self, flops: FloatArray, delta: float) -> FloatArray:
        """Return ln k at budgets."""
        return math.log(self.multiplier) + delta * (np.log(flops) - self.center)

    def draw(self, rng: np.random.Generator) -> tuple[Arm, Arm, float]:
        """Return a pair of arms with noise, and its delta."""
        delta = 0.05 * rng.standard_normal() if self.delta is None else self.delta
        points: dict[str, list[Point]] = {"a": [], "b": []}
        for budget in self.budgets:
            for n_params in self._sizes(budget):
                for seed in range(self.n_seeds):
                    shared = rng.standard_normal()
                    for arm, found in points.items():
                        own = rng.standard_normal()
                        noise = math.sqrt(self.correlation) * shared + math.sqrt(1 - self.correlation) * own
                        size = n_params * (self.shift if arm == "b" else 1.0)
                        found.append(self._point(arm, budget, size, seed, self.sd * noise, delta))
        return Arm(name="a", points=points["a"]), Arm(name="b", points=points["b"]), delta

    def _sizes(self, budget: float) -> FloatArray:
        _, a, b, alpha, beta = self.surface
        factor = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
        optimum = factor * (budget / 6) ** (beta / (alpha + beta))
        return np.geomspace(optimum / self.span, optimum * self.span, self.n_sizes)

    def _point(
        self, arm: str, budget: float, n_params: float, seed: int, noise: float, delta: float
    ) -> Point:
        e, a, b, alpha, beta = self.surface
        n_tokens = budget / (6 * n_params)
        log_k = float(self.log_multiplier(np.array(budget), delta)) if arm == "b" else 0.0
        scale = math.exp(0.5 * log_k)  # of both N and D
        loss = e + a / (scale * n_params) ** alpha + b / (scale * n_tokens) ** beta
        return Point(
            n_params=n_params,
            n_tokens=n_tokens,
            flops=budget,
            flops_budget=budget,
            loss=loss * math.exp(noise),
            seed=seed,
        )


PLANTS = (
    Plant(name="factor 1.3"),
    Plant(name="identical arms", multiplier=1.0),
    Plant(name="independent noise", correlation=0.0),
    Plant(name="common noise .9", correlation=0.9),
    Plant(name="exponents differ by 0.1", delta=0.1),
    Plant(name="exponents from the prior", delta=None),
    Plant(name="other sizes, no matches", shift=1.15, correlation=0.0),
    Plant(name="one seed, noisy", n_seeds=1, sd=0.008),
    Plant(name="quiet, seven sizes", n_seeds=1, n_sizes=7, sd=0.001),
    Plant(
        name="four budgets, published surface",
        budgets=tuple(np.geomspace(1e18, 1e21, 4)),
        surface=(1.69, 406.4, 410.7, 0.34, 0.28),
        sd=0.002,
        n_seeds=1,
        n_sizes=7,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measured:
    """Estimates and intervals of ln k at the k tested budgets of one pair, arrays of shape (k,)."""

    error: FloatArray
    lower: FloatArray
    upper: FloatArray
    width_unpaired: FloatArray
    p_value: float


def measure(plant: Plant, rng: np.random.Generator, config: FitConfig) -> Measured:
    """Compare one drawn pair."""
    arm_a, arm_b, delta = plant.draw(rng)
    a, b = arm_minima(arm_a, config), arm_minima(arm_b, config)
    tested = np.array([plant.budgets[0], plant.budgets[-1], 10 * plant.budgets[-1]])
    truth = plant.log_multiplier(tested, delta)
    widths = []
    for paired in (False, True):
        found = fit_jointly(pair(a, b, paired=paired), n_draws=config.n_bootstrap, seed=config.seed)
        estimate = found.estimate.log_multiplier(np.log(tested))[0]
        tail = (1 - config.confidence) / 2
        lower, upper = np.quantile(found.draws.log_multiplier(np.log(tested)), [tail, 1 - tail], axis=0)
        widths.append(upper - lower)
    return Measured(
        error=estimate - truth,
        lower=lower - truth,
        upper=upper - truth,
        width_unpaired=widths[0],
        p_value=found.test.p_value,
    )


def main() -> None:
    """Print a line for each plant and tested budget."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=200, help="planted pairs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=400)
    chosen = parser.parse_args()
    config = dataclasses.replace(FitConfig(), n_bootstrap=chosen.draws, confidence=CONFIDENCE)
    print(f"{'planted pair':34s}{'budget':>9s} coverage  width/MC  unpaired/paired  bias  exponents differ")
    for plant in PLANTS:
        rng = np.random.default_rng(chosen.seed)
        print_plant(plant, [measure(plant, rng, config) for _ in range(chosen.pairs)])


def print_plant(plant: Plant, found: list[Measured]) -> None:
    """Print coverage and widths of one plant."""
    error = np.stack([one.error for one in found])
    lower, upper = np.stack([one.lower for one in found]), np.stack([one.upper for one in found])
    coverage = ((lower <= 0) & (upper >= 0)).mean(axis=0)
    width = (upper - lower).mean(axis=0)
    spread = np.ptp(np.quantile(error, [0.05, 0.95], axis=0), axis=0)
    gain = np.stack([one.width_unpaired for one in found]).mean(axis=0) / width
    rejected = np.mean([one.p_value < 0.05 for one in found])
    for at, label in enumerate(("smallest", "largest", "10 x")):
        name = plant.name if at == 0 else ""
        share = f"{rejected:17.0%}" if at == 0 else ""
        print(
            f"{name:34s}{label:>9s}{coverage[at]:9.1%}{width[at] / spread[at]:10.2f}{gain[at]:17.2f}"
            f"{error[:, at].mean():+6.3f}{share}",
            flush=True,
        )


if __name__ == "__main__":
    main()
