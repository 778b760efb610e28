#!/usr/bin/env python
"""FLOPs of suggested runs and of a fixed grid for the same interval of N_opt, by replay.

A fixed grid trains all sizes of one budget after the other, in ascending order. The adaptive sweep starts
from five sizes, evenly spread in ln N, of the first three of these budgets, and adds what
`sweep.fit.design` proposes until its interval is as narrow as that of the grid. Both are fitted by
`sweep fit` after every step, and the runs of the start count on both sides. The ratio is that of their FLOPs.

    python -m scripts.benchmarks.design_replay planted --replicates 4 --out results/reference/design
    python -m scripts.benchmarks.design_replay tables DIR --out results/reference/design

Planted sweeps have known laws; any size and seed can be added, at budgets up to the largest of the grid.
`tables` replays the .csv files of a directory as pools: a step chooses from the rows that are left, the
target is the largest budget with a measured minimum, which is held out, and the ratio is measured for the
interval that the grid has after each of its budgets from the fourth on.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.fit.answer import AnswerLaw
from sweep.fit.design.model import situation
from sweep.fit.design.propose import Pool, propose
from sweep.fit.table.observations import observe
from sweep.records import Point
from sweep.report.figures.style import new_figure, save_figure, style

FloatArray = npt.NDArray[np.float64]

CONFIG = dataclasses.replace(FitConfig(), methods=("trend",), n_bootstrap=60, confidence=0.9)
PILOT = 3  # budgets of the grid that the adaptive sweep starts from
REACH = 10.0  # times the largest budget: the target
START_SIZES = 5  # of each of these budgets
ROUND = 0.1  # of the grid's FLOPs: the allowance of one proposal
LARGEST = 1.0  # of the grid's FLOPs: where the adaptive sweep ends at the latest


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
    answer: AnswerLaw | None
    predicted: float = math.nan  # the width that the proposal expected


def measured(points: Sequence[Point], target: float, truth: float, predicted: float = math.nan) -> State:
    """Fit the points and return the interval at the target."""
    answer = fit(points, CONFIG).answer
    cost = sum(point.flops_budget or 0.0 for point in points)
    if not isinstance(answer, AnswerLaw):
        return State(flops=cost, n_runs=len(points), width=math.inf, error=math.nan, answer=None)
    low, high = answer.interval("n_params_opt", target) or (0.0, math.inf)
    return State(
        flops=cost,
        n_runs=len(points),
        width=math.log(high / low),
        error=math.log(answer.n_params_opt(target)) - truth,
        answer=answer,
        predicted=predicted,
    )


class Source:
    """The runs of one replay: those of the grid by budget, and a pool to choose from."""

    def __init__(self, grid: Sequence[Sequence[Point]], pool: Pool, target: float, truth: float) -> None:
        self.grid, self.pool, self.target, self.truth = grid, pool, target, truth

    @property
    def start(self) -> list[Point]:
        """The runs that the adaptive sweep starts from."""
        return [point for level in self.grid[:PILOT] for point in spread(level)]

    def draw(self, row: int, number: int) -> Point:
        """Return run `number` of a cell of the pool."""
        raise NotImplementedError


def spread(level: Sequence[Point]) -> list[Point]:
    """Return one run of each of START_SIZES sizes of a budget, evenly spread in ln N from end to end."""
    by_size = {point.n_params: point for point in reversed(level)}
    sizes = np.array(sorted(by_size))
    left = set(sizes.tolist())
    for at in np.linspace(*np.log(sizes[[0, -1]]), START_SIZES).tolist():
        if left:
            left.remove(min(left, key=lambda n: abs(math.log(n) - at)))
    return [by_size[n] for n in sizes.tolist() if n not in left]


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
        used = {id(point) for level in grid[:PILOT] for point in spread(level)}
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
    points, pool = source.start, source.pool
    states = [measured(points, source.target, source.truth)]
    drawn: dict[int, int] = {}
    while states[-1].flops < LARGEST * total and states[-1].width > goal:
        answer = states[-1].answer
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
    """One replay to the interval of the grid."""

    sweep: str
    seed: int
    level: int  # budgets of the grid
    ratio: float  # FLOPs of the adaptive sweep over those of the grid; infinite if it did not reach the width
    grid_runs: int
    runs: int
    grid_width: float
    width: float
    grid_error: float  # of ln N_opt
    error: float


Curve = dict[str, object]


def compare(
    name: str, seed: int, source: Source, *, every_level: bool
) -> Iterator[tuple[Result, list[Curve]]]:
    """Replay both to the interval of the whole grid or, with `every_level`, of the grid up to each budget."""
    fixed = fixed_curve(source)
    whole = fixed[-1].flops
    for index in range(1, len(fixed)) if every_level else [len(fixed) - 1]:
        grid = fixed[index]
        goal = min(state.width for state in fixed[: index + 1]) if every_level else grid.width
        adaptive = adaptive_curve(source, grid.flops, goal)
        end = adaptive[-1]
        result = Result(
            sweep=name,
            seed=seed,
            level=PILOT + index,
            ratio=end.flops / grid.flops if end.width <= goal else math.inf,
            grid_runs=grid.n_runs,
            runs=end.n_runs,
            grid_width=goal,
            width=end.width,
            grid_error=grid.error,
            error=end.error,
        )
        pairs = (("grid", fixed), ("adaptive", adaptive))
        yield (
            result,
            [
                {"sweep": name, "seed": seed, "kind": kind, "flops": s.flops / whole, "runs": s.n_runs}
                | {"width": s.width / fixed[-1].width, "expected": s.predicted / fixed[-1].width}
                | {"error": s.error}
                for kind, states in pairs
                for s in states
            ],
        )


def sources(chosen: argparse.Namespace) -> Iterator[tuple[str, int, Source]]:
    """Yield the replays that were asked for."""
    if chosen.kind == "planted":
        for seed in range(chosen.first, chosen.first + chosen.replicates):
            for scenario in SCENARIOS:
                yield scenario.name, seed, PlantedSource(scenario, seed)
        return
    for path in sorted(chosen.directory.glob("*.csv")):
        source = TableSource(path)
        if len(source.grid) > PILOT:
            yield path.stem, 0, source


def summary(results: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return the ratios by sweep, the errors, and the honesty of the expected intervals."""
    by_sweep = results.groupby("sweep")[["ratio", "runs", "grid_runs"]].median().round(2)
    rms = np.sqrt((results[["grid_error", "error"]] ** 2).mean())
    known = curves[np.isfinite(curves["expected"]) & (curves["kind"] == "adaptive")]
    honest = (known["width"] / known["expected"]).quantile([0.1, 0.5, 0.9]).round(2).tolist()
    held = (2 * results["error"].abs() <= results["width"]).mean()
    of_grid = (2 * results["grid_error"].abs() <= results["grid_width"]).mean()
    return "\n".join(
        [
            by_sweep.to_string(),
            f"median ratio {results['ratio'].median():.2f}, at most one half in "
            f"{(results['ratio'] <= 0.5).mean():.0%} of {len(results)}",
            f"error of ln N_opt: rms {rms['error']:.3f}, of the grid {rms['grid_error']:.3f}; median "
            f"{results['error'].abs().median():.3f}, of the grid {results['grid_error'].abs().median():.3f}",
            f"intervals that hold the truth: {held:.0%}, of the grid {of_grid:.0%}, nominal "
            f"{CONFIG.confidence:.0%}",
            f"width over expected width: 10, 50 and 90 % {honest} of {len(known)}",
        ]
    )


def draw(results: pd.DataFrame, curves: pd.DataFrame, stem: Path) -> None:
    """Draw the widths by FLOPs, and the ratios by scenario."""
    with style():
        figure, (left, right) = new_figure(width=9.0, height=3.6, n_panels=2)
        grid = np.geomspace(0.01, 1.0, 60)
        for kind, color in (("grid", "#999999"), ("adaptive", "#0072B2")):
            steps = []
            for _, curve in curves[curves["kind"] == kind].groupby(["sweep", "seed"]):
                left.plot(curve["flops"], curve["width"], color=color, alpha=0.15, linewidth=0.7)
                at = np.searchsorted(curve["flops"].to_numpy(), grid, side="right") - 1
                best = np.minimum.accumulate(curve["width"].to_numpy())
                steps.append(np.where(at >= 0, best[np.maximum(at, 0)], np.nan))
            middle = np.nanmedian(np.array(steps)[:, 5:], axis=0)  # every sweep has begun by then
            left.plot(grid[5:], middle, color=color, linewidth=2, label=f"{kind}, median")
        left.axhline(1.0, color="black", linewidth=0.6, linestyle=":")
        left.set(xscale="log", yscale="log", xlabel="FLOPs over those of the grid")
        left.set(ylabel="width of the interval of ln N_opt\nover that of the whole grid")
        left.legend(frameon=False)
        names = list(dict.fromkeys(results["sweep"]))
        for y, name in enumerate(names):
            ratio = results[results["sweep"] == name]["ratio"].clip(upper=1.2)
            right.plot(ratio, np.full(len(ratio), y), "o", color="#0072B2", alpha=0.5, markersize=4)
            right.plot([ratio.median()], [y], "|", color="black", markersize=14)
        right.axvline(0.5, color="black", linewidth=0.6, linestyle=":")
        right.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.25))
        right.set(xticks=[0, 0.25, 0.5, 0.75, 1, 1.2])
        right.set(xticklabels=["0", ".25", ".5", ".75", "1", "not\nreached"])
        right.set(xlabel="FLOPs for the interval of the grid,\nover those of the grid")
        save_figure(figure, stem)


def main() -> None:
    """Replay, print the ratios, and write tables and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("planted", "tables"))
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--replicates", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--out", type=Path, help="directory of the tables and the figure")
    chosen = parser.parse_args()
    rows: list[dict[str, object]] = []
    steps: list[Curve] = []
    for name, seed, source in sources(chosen):
        for result, curve in compare(name, seed, source, every_level=chosen.kind == "tables"):
            rows.append(dataclasses.asdict(result))
            steps += curve
            print(
                f"{name} {seed}, {result.level} budgets: ratio {result.ratio:.2f}, runs {result.runs} of "
                f"{result.grid_runs}, width {result.width:.3f} for {result.grid_width:.3f}",
                flush=True,
            )
    results, curves = pd.DataFrame(rows), pd.DataFrame(steps)
    print(summary(results, curves))
    if chosen.out is None:
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.kind == "tables":  # ratios alone: the losses are not ours
        results[["sweep", "level", "ratio"]].round(3).to_csv(chosen.out / "tables.csv", index=False)
        return
    results.round(4).to_csv(chosen.out / "planted.csv", index=False)
    curves.round(4).to_csv(chosen.out / "planted_curves.csv", index=False)
    draw(results, curves, chosen.out / "design")


if __name__ == "__main__":
    main()
