#!/usr/bin/env python
"""FLOPs of suggested runs and of a fixed grid for the same interval of N_opt, by replay.

A fixed grid trains all sizes of one budget after the other, in ascending order. The adaptive sweep starts
from the first three of these budgets and adds what `sweep.fit.design` proposes, from runs that cost at most as
much as the largest of the grid. Both are fitted by `sweep fit` after every step. For every budget k of the
grid from the fourth on, the ratio is the FLOPs at which the adaptive sweep first reaches the interval that the
grid has after k budgets, over the grid's FLOPs by then; runs of the start count on both sides.

    python -m scripts.benchmarks.design_replay planted --replicates 4
    python -m scripts.benchmarks.design_replay tables DIR

Planted sweeps have known laws, and any size and seed can be added. `tables` replays the .csv files of a
directory as pools: every step chooses from the rows that are left. Results go to results/reference/design.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweep.config import FitConfig
from sweep.fit import Fit, fit
from sweep.fit.answer import AnswerLaw
from sweep.fit.design import Pool, propose, situation
from sweep.fit.table.observations import observe
from sweep.records import Point

FloatArray = npt.NDArray[np.float64]

CONFIG = dataclasses.replace(FitConfig(), methods=("isoflop", "trend"), n_bootstrap=60, confidence=0.9)
PILOT = 3  # budgets of the grid that the adaptive sweep starts from
REACH = 10.0  # times the largest budget: the target
ROUND = 0.1  # of the grid's FLOPs: the allowance of one proposal
LARGEST = 1.0  # of the grid's FLOPs: where the adaptive sweep ends at the latest
OUT = Path("results/reference/design")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A planted law, the noise of a run's ln L, and the grid."""

    name: str
    alpha: float
    beta: float
    sd: float
    E: float = 1.69
    A: float = 406.4
    B: float = 410.7
    smallest: float = 1e17
    step: float = 3.0
    n_budgets: int = 7
    n_sizes: int = 7
    span: float = 3.0
    n_seeds: int = 1
    bend: float = 0.0  # change of ln L per squared e-fold of D: a form error
    off: float = 1.0  # centre of the grid's sizes over the optimum

    @property
    def budgets(self) -> FloatArray:
        """FLOPs of the grid's budgets."""
        return np.asarray(self.smallest * self.step ** np.arange(self.n_budgets))

    @property
    def target(self) -> float:
        """The budget at which the answer is asked for."""
        return float(REACH * self.budgets[-1])

    def loss(self, n_params: FloatArray, flops: FloatArray) -> FloatArray:
        """Return the expected loss at C = 6 N D."""
        n_tokens = flops / (6 * n_params)
        bend = np.exp(self.bend * np.log(flops / self.smallest) ** 2)
        return np.asarray(self.E + (self.A / n_params**self.alpha + self.B / n_tokens**self.beta) * bend)

    def optimum(self, flops: float) -> float:
        """Return ln N of least loss by search on a fine grid."""
        center = math.log(math.sqrt(flops / 120.0))
        log_n = np.linspace(center - 5, center + 5, 20001)
        loss = self.loss(np.exp(log_n), np.full_like(log_n, flops))
        return float(log_n[np.argmin(loss)])


SCENARIOS = (
    Scenario(name="chinchilla, quiet", alpha=0.34, beta=0.28, sd=0.001),
    Scenario(name="chinchilla, noisy", alpha=0.34, beta=0.28, sd=0.004),
    Scenario(name="epoch", alpha=0.348, beta=0.366, sd=0.002, E=1.82, A=482.0, B=2085.4),
    Scenario(name="steep", alpha=0.50, beta=0.45, sd=0.002, A=3000.0, B=9000.0),
    Scenario(name="unequal exponents", alpha=0.45, beta=0.30, sd=0.002, A=1500.0, B=450.0),
    Scenario(
        name="small grid, two seeds", alpha=0.34, beta=0.28, sd=0.003, n_budgets=5, n_sizes=5, n_seeds=2
    ),
    Scenario(name="dense budgets", alpha=0.34, beta=0.28, sd=0.002, step=2.0, n_budgets=9, n_sizes=9),
    Scenario(name="off-centre grid", alpha=0.34, beta=0.28, sd=0.002, off=1.6),
    Scenario(name="bent", alpha=0.34, beta=0.28, sd=0.002, bend=-0.002),
)


@dataclass(frozen=True, kw_only=True)
class State:
    """The answer after some runs."""

    flops: float
    n_runs: int
    width: float  # of the interval of ln N_opt at the target; infinite without an answer
    error: float  # of ln N_opt against the truth
    loss_width: float
    predicted: float = math.nan  # the width that the proposal expected


def measured(points: Sequence[Point], target: float, truth: float, predicted: float = math.nan) -> State:
    """Fit the points and return the interval at the target."""
    fitted = fit(points, CONFIG)
    cost = sum(point.flops_budget or 0.0 for point in points)
    answer = fitted.answer
    if not isinstance(answer, AnswerLaw):
        return State(flops=cost, n_runs=len(points), width=math.inf, error=math.nan, loss_width=math.inf)
    (low, high), (least, most) = (
        answer.interval(q, target) or (0.0, 1.0) for q in ("n_params_opt", "loss_opt")
    )
    return State(
        flops=cost,
        n_runs=len(points),
        width=math.log(high / low),
        error=math.log(answer.n_params_opt(target)) - truth,
        loss_width=math.log(most / least),
        predicted=predicted,
    )


def answer_of(points: Sequence[Point]) -> Fit:
    """Fit the points."""
    return fit(points, CONFIG)


class Source:
    """The runs of one replay: those of the grid by budget, and a pool to choose from."""

    def __init__(self, grid: Sequence[Sequence[Point]], pool: Pool, target: float, truth: float) -> None:
        self.grid, self.pool, self.target, self.truth = grid, pool, target, truth

    def draw(self, row: int, number: int) -> Point:
        """Return run `number` of a cell of the pool."""
        raise NotImplementedError


class PlantedSource(Source):
    """Runs of a planted law: grid and pool share no noise, apart from the start."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario, self.seed = scenario, seed
        rng = np.random.default_rng([seed, zlib.crc32(scenario.name.encode())])
        grid = []
        for budget in scenario.budgets.tolist():
            center = scenario.optimum(budget) + math.log(scenario.off)
            log_n = np.linspace(-1, 1, scenario.n_sizes) * math.log(scenario.span) + center
            grid.append([self._point(x, budget, rng) for x in log_n for _ in range(scenario.n_seeds)])
        budgets = scenario.smallest * scenario.step ** np.arange(0, scenario.n_budgets - 0.75, 0.5)
        log_n = np.arange(math.log(1e6), math.log(1e12), math.log(2) / 3)
        ratio = [budget / (6 * np.exp(2 * log_n)) for budget in budgets]  # tokens per parameter
        cells = [
            (b, x)
            for b, r in zip(budgets, ratio, strict=True)
            for x, q in zip(log_n, r, strict=True)
            if 0.5 < q < 2000
        ]
        at, log_sizes = np.array(cells).T
        pool = Pool(flops_budget=at, n_params=np.exp(log_sizes), flops=at, n_free=np.full(len(at), 8))
        super().__init__(grid, pool, scenario.target, scenario.optimum(scenario.target))

    def _point(self, log_n: float, budget: float, rng: np.random.Generator) -> Point:
        size = np.array([math.exp(log_n)])
        mean = float(self.scenario.loss(size, np.array([budget]))[0])
        loss = mean * math.exp(self.scenario.sd * rng.standard_normal())
        n = float(size[0])
        return Point(n_params=n, n_tokens=budget / (6 * n), flops=budget, flops_budget=budget, loss=loss)

    def draw(self, row: int, number: int) -> Point:
        """Return a new run of a cell of the lattice."""
        rng = np.random.default_rng([self.seed, 1, row, number])
        return self._point(math.log(self.pool.n_params[row]), float(self.pool.flops_budget[row]), rng)


class TableSource(Source):
    """The rows of a real sweep; its largest measured budget is the target, and no row of it is used."""

    def __init__(self, path: Path) -> None:
        table = pd.read_csv(path)
        whole = observe([_row(row) for row in table.to_dict("records")])
        found = situation(whole, None, CONFIG)
        held = [b for b in found.budgets if b.status == "ok"][-1]
        rows = table[table["flops_budget"] < held.flops_budget * 0.99]
        points = [_row(row) for row in rows.to_dict("records")]
        budgets = sorted(rows["flops_budget"].unique())
        self._points = points
        grid = [[p for p in points if p.flops_budget == budget] for budget in budgets]
        used = {id(p) for level in grid[:PILOT] for p in level}
        pool = Pool(
            flops_budget=np.array([p.flops_budget for p in points], dtype=float),
            n_params=np.array([p.n_params for p in points], dtype=float),
            flops=np.array([p.flops_budget for p in points], dtype=float),
            n_free=np.array([int(id(p) not in used) for p in points]),
        )
        super().__init__(grid, pool, held.flops_budget, math.log(held.n_params_opt or math.nan))

    def draw(self, row: int, number: int) -> Point:
        """Return the row."""
        return self._points[row]


def _row(row: dict[str, float]) -> Point:
    return Point(
        n_params=float(row["n_params"]),
        n_tokens=float(row["n_tokens"]),
        flops=float(row.get("flops", row["flops_budget"])),
        flops_budget=float(row["flops_budget"]),
        loss=float(row["loss"]),
    )


def fixed_curve(source: Source) -> list[State]:
    """Return the answer after each budget of the grid from the last of the start on."""
    states = []
    for k in range(PILOT, len(source.grid) + 1):
        points = [point for level in source.grid[:k] for point in level]
        states.append(measured(points, source.target, source.truth))
    return states


def adaptive_curve(source: Source, total: float, goal: float) -> list[State]:
    """Return the answer after every round, until the width is `goal` or the FLOPs reach those of the grid."""
    points = [point for level in source.grid[:PILOT] for point in level]
    pool = source.pool
    states = [measured(points, source.target, source.truth)]
    drawn: dict[int, int] = {}
    while states[-1].flops < LARGEST * total and states[-1].width > goal:
        answer = fit(points, CONFIG).answer
        found = situation(observe(points), answer, CONFIG)
        left = LARGEST * total - states[-1].flops
        wanted = {"n_params": goal / states[-1].width}
        proposal = propose(found, answer, pool, source.target, left, wanted)
        rows: list[int] = []
        spent, n_actions = 0.0, 0
        for action in proposal.actions:
            if rows and spent + action.flops > ROUND * total:
                break
            rows += action.rows
            spent, n_actions = spent + action.flops, n_actions + 1
        if not rows:
            break
        for row in rows:
            drawn[row] = drawn.get(row, -1) + 1
            points.append(source.draw(row, drawn[row]))
        pool = pool.without(rows)
        factors = proposal.width_factors
        factor = factors[n_actions - 1]["n_params"] if factors else math.nan
        states.append(measured(points, source.target, source.truth, factor * states[-1].width))
    return states


@dataclass(frozen=True, kw_only=True)
class Result:
    """One replay."""

    scenario: str
    seed: int
    grid_runs: int
    runs: int
    grid_width: float
    width: float
    ratio: float  # FLOPs of the adaptive sweep over those of the grid; infinite if it did not reach the width
    grid_error: float
    error: float


def compare(name: str, seed: int, source: Source) -> tuple[Result, list[State], list[State]]:
    """Replay both."""
    fixed = fixed_curve(source)
    adaptive = adaptive_curve(source, fixed[-1].flops, fixed[-1].width)
    end = adaptive[-1]
    result = Result(
        scenario=name,
        seed=seed,
        grid_runs=fixed[-1].n_runs,
        runs=end.n_runs,
        grid_width=fixed[-1].width,
        width=end.width,
        ratio=end.flops / fixed[-1].flops if end.width <= fixed[-1].width else math.inf,
        grid_error=fixed[-1].error,
        error=end.error,
    )
    return result, fixed, adaptive


def planted(names: Sequence[str], replicates: int, first: int) -> Iterator[tuple[Scenario, int]]:
    """Yield every scenario with every seed."""
    for seed in range(first, first + replicates):
        for scenario in SCENARIOS:
            if not names or scenario.name in names:
                yield scenario, seed


def main() -> None:
    """Replay, print the ratios and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("planted", "tables"))
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--replicates", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--scenario", action="append", default=[])
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    results: list[Result] = []
    curves: list[dict[str, object]] = []
    if chosen.kind == "planted":
        sources = (
            (s.name, seed, PlantedSource(s, seed))
            for s, seed in planted(chosen.scenario, chosen.replicates, chosen.first)
        )
    else:
        sources = (
            (path.stem, 0, TableSource(path))
            for path in sorted(chosen.directory.glob("*.csv"))
            if not chosen.scenario or path.stem in chosen.scenario
        )
    for name, seed, source in sources:
        began = time.process_time()
        found, fixed, adaptive = compare(name, seed, source)
        results.append(found)
        print(
            f"{name} {seed}: {found.ratio:.2f} runs {found.runs}/{found.grid_runs} width {found.width:.3f}/{found.grid_width:.3f} error {found.error:+.3f}/{found.grid_error:+.3f} {time.process_time() - began:.1f}s",
            flush=True,
        )
        if chosen.verbose:
            for kind, states in (("fixed", fixed), ("adaptive", adaptive)):
                for s in states:
                    print(
                        f"   {kind:9s} {s.flops / fixed[-1].flops:6.3f} runs {s.n_runs:3d} width {s.width:.3f} (expected {s.predicted:.3f}) loss {s.loss_width:.4f} error {s.error:+.3f}"
                    )
    table = pd.DataFrame([dataclasses.asdict(r) for r in results])
    print(table.groupby("scenario")[["ratio", "runs", "grid_runs"]].median().round(2).to_string())
    print(
        "median",
        table["ratio"].median(),
        "rms error",
        np.sqrt((table[["grid_error", "error"]] ** 2).mean()).to_dict(),
        "median",
        table[["grid_error", "error"]].abs().median().to_dict(),
    )


if __name__ == "__main__":
    main()
