"""Critical batch sizes by a sweep of batches, and gradient-noise scales of finished runs.

Legend: B tokens per step, N parameters, D tokens, L loss. The overhead of a batch is the share of tokens that
it needs in addition to those of the best batch for the same loss; it follows from the loss at equal D by the
surface L(N, D) of cpu_stdlib. A batch is critical where its overhead is 20 % (Zhang et al. 2024, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from scripts.evidence.markdown import count_interval, flops, number, rows
from scripts.evidence.studies import STUDIES, arm_points, fitted, grid_points, replicate_sd, validation_keys
from sweep.records import Point
from sweep.report.figures.style import DARK, GREY, count_ticks, loss_ticks, new_figure, style

FloatArray = npt.NDArray[np.float64]

CRITICAL = 0.2  # overhead of a critical batch
COLORS = ("#0072B2", "#009E73", "#D55E00")  # Okabe & Ito 2008
N_DRAWS, SEED = 1000, 0


@cache
def _surface() -> dict[str, float]:
    return fitted(STUDIES["cpu_stdlib"]).laws["parametric"].constants


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BatchCell:
    """Losses of one size and number of tokens over batches, each at the best of its learning rates."""

    budget: float  # FLOPs
    batch: FloatArray  # (k,) tokens per step, ascending
    loss: FloatArray  # (k,) nats per token
    rule: float  # batch of the rule, tokens
    noise_scale: float  # geometric mean over the runs, tokens
    n_params: float
    n_tokens: float

    def overhead(self, loss: FloatArray) -> FloatArray:
        """Return the overhead of every batch, for losses (..., k)."""
        constants = _surface()
        limit = constants["E"] + constants["A"] * self.n_params ** -constants["alpha"]
        own = constants["B"] * self.n_tokens ** -constants["beta"]
        ratio = loss / loss.min(axis=-1, keepdims=True)
        reached = (limit + own) * ratio - limit
        return np.asarray((reached / own) ** (1 / constants["beta"]) - 1)

    def critical(self, loss: FloatArray) -> float:
        """Return the batch above the best one with an overhead of CRITICAL, by interpolation in ln B."""
        best = int(np.argmin(loss))
        rising = np.maximum.accumulate(self.overhead(loss)[best:])
        return float(np.exp(np.interp(CRITICAL, rising, np.log(self.batch[best:]))))

    def critical_interval(self, sd: float) -> tuple[float, float]:
        """Return the 90 % interval of `critical` under noise of ln L with standard deviation `sd`."""
        noise = np.random.default_rng(SEED).normal(0.0, sd, (N_DRAWS, len(self.loss)))
        draws = [self.critical(self.loss * np.exp(row)) for row in noise]
        low, high = np.percentile(draws, [5, 95])
        return float(low), float(high)


def batch_cells() -> list[BatchCell]:
    """Return the cells of the batch sweep by budget."""
    pairs = [pair for pairs in arm_points(STUDIES["batches"]).values() for pair in pairs]
    budgets = sorted({point.flops_budget or 0.0 for point, _ in pairs})
    rules = {point.flops_budget: float(extras["batch_tokens"]) for point, extras in pairs if _is_rule(point)}
    cells = []
    for budget in budgets:
        own = [(point, extras) for point, extras in pairs if point.flops_budget == budget]
        best: dict[float, float] = {}
        for point, extras in own:
            batch = float(extras["batch_tokens"])
            best[batch] = min(point.loss or np.inf, best.get(batch, np.inf))
        scales = [float(extras["b_simple_tokens"]) for _, extras in own if extras["b_simple_tokens"]]
        batches = sorted(best)
        cells.append(
            BatchCell(
                budget=budget,
                batch=np.array(batches),
                loss=np.array([best[batch] for batch in batches]),
                rule=rules[budget],
                noise_scale=float(np.exp(np.mean(np.log(scales)))),
                n_params=own[0][0].n_params or np.nan,
                n_tokens=own[0][0].n_tokens or np.nan,
            )
        )
    return cells


def _is_rule(point: Point) -> bool:
    return str(point.arm).startswith("batch_multiplier=1,")


def batch_table() -> list[str]:
    """Return the best and the critical batch of every cell, with rule and noise scale."""
    sd = replicate_sd(grid_points(STUDIES["cpu_stdlib"]))
    body = [
        [
            flops(cell.budget),
            f"{cell.loss.min():.3f}",
            number(cell.rule),
            number(float(cell.batch[np.argmin(cell.loss)])),
            count_interval(cell.critical(cell.loss), cell.critical_interval(sd), 2),
            number(cell.noise_scale, 2),
        ]
        for cell in batch_cells()
    ]
    return rows(["budget", "loss", "rule's batch", "best batch", "critical batch", "noise scale"], body)


def noise_points() -> FloatArray:
    """Return loss, noise scale and batch of the grid of cpu_stdlib, shape (n, 3), where |G|² was resolved."""
    study = STUDIES["cpu_stdlib"]
    tested = validation_keys(study)
    return np.array(
        [
            [point.flops_budget, point.loss, float(extras["b_simple_tokens"]), float(extras["batch_tokens"])]
            for point, extras in arm_points(study)[None]
            if point.run_key not in tested and extras["b_simple_tokens"]
        ]
    )


def noise_table() -> list[str]:
    """Return the gradient-noise scale of the runs of cpu_stdlib with the batch of its rule, by budget."""
    points, body = noise_points(), []
    for budget in np.unique(points[:, 0]):
        logs = np.log(points[points[:, 0] == budget, 1:])
        loss, scale, batch = np.exp(logs.mean(axis=0))
        spread = f"× {np.exp(logs[:, 1].std()):.1f}"
        cells = [str(len(logs)), f"{loss:.2f}", number(scale, 2), spread, number(batch, 2)]
        body.append([flops(float(budget)), *cells])
    return rows(["budget", "runs resolved", "loss", "noise scale", "spread", "batch"], body)


def batch_figure() -> Figure:
    """Draw noise scales and critical batches against the loss, and the overhead against the batch."""
    sd = replicate_sd(grid_points(STUDIES["cpu_stdlib"]))
    with style():
        figure, (left, right) = new_figure(width=9.0, height=3.6, n_panels=2)
        _, loss, scale, batch = noise_points().T
        left.plot(loss, scale, "o", color=GREY, ms=4, label="noise scale")
        left.plot(loss, batch, ".", color=GREY, ms=4, label="batch of the rule")
        for cell, color in zip(batch_cells(), COLORS, strict=True):
            least = float(cell.loss.min())
            left.plot([least, least], cell.critical_interval(sd), color=color, lw=1.2)
            left.plot(least, cell.critical(cell.loss), "D", color=color, ms=6)
            label = f"{flops(cell.budget)} FLOPs, loss {least:.2f}"
            right.plot(cell.batch, 100 * cell.overhead(cell.loss), "o-", color=color, label=label)
        left.set(xscale="log", yscale="log", xlabel="held-out loss (nats per token)", ylabel="tokens")
        loss_ticks(left.xaxis)
        left.invert_xaxis()
        count_ticks(left.yaxis)
        left.set_title("critical batches (diamonds)", loc="left")
        left.legend(labelcolor=DARK)
        right.axhline(100 * CRITICAL, color=GREY, lw=1, ls=":")
        right.set(xscale="log", xlabel="tokens per step", ylabel="overhead, %", ylim=(-5, 120))
        count_ticks(right.xaxis)
        right.set_title("tokens needed in addition; dotted: critical", loc="left")
        right.legend(labelcolor=DARK)
        return figure
