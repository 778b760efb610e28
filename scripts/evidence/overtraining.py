"""Price of training at other ratios of tokens to parameters than the optimal one.

Legend: N parameters, D tokens, M = D/N, C training FLOPs, L loss. The excess of a run is ln L less that of
the optimum at its budget. Its price is C over the budget at which the optimum has the same loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from scripts.evidence.markdown import flops, interval, percent, rows
from scripts.evidence.studies import STUDIES, fitted, grid_points
from sweep.fit.laws.catalogue import published_surface
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.report.figures.style import DARK, GREY, budget_colors, new_figure, reach_ticks, side_legend, style

FloatArray = npt.NDArray[np.float64]

RATIOS = (1 / 6, 1 / 4, 1 / 2, 2.0, 4.0)  # of M over the optimal M
PUBLISHED, PUBLISHED_FLOPS = "besiroglu_2024", 1e21
N_DRAWS, SEED = 1000, 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Excess:
    """Losses of all runs relative to the optimum of their budget."""

    log_ratio: FloatArray  # (n,) ln of M over the optimal M
    excess: FloatArray  # (n,) of ln L
    budget: FloatArray  # (n,) FLOPs
    gamma: float  # L_opt ∝ C^-gamma over the budgets

    def curve(self, ratios: npt.ArrayLike, rows: FloatArray | slice = slice(None)) -> FloatArray:
        """Return the excess at some ratios by least squares of c₂ x² + c₃ x³ over x = ln ratio."""
        x, y = self.log_ratio[rows], self.excess[rows]
        found, *_ = np.linalg.lstsq(np.stack([x**2, x**3], axis=1), y, rcond=None)
        at = np.log(np.asarray(ratios, dtype=np.float64))
        return np.asarray(found[0] * at**2 + found[1] * at**3)

    def draws(self, ratios: npt.ArrayLike) -> FloatArray:
        """Return `curve` of resampled runs, (N_DRAWS, k)."""
        rng = np.random.default_rng(SEED)
        n = len(self.excess)
        return np.stack([self.curve(ratios, rng.integers(n, size=n)) for _ in range(N_DRAWS)])


def excess_of_grid() -> Excess:
    """Return the excess of the grid of cpu_stdlib over the parabolas' minima."""
    study = STUDIES["cpu_stdlib"]
    law = fitted(study).laws["isoflop"]
    assert isinstance(law, IsoflopLaw)
    minima = {one.flops_budget: one for one in law.budgets if one.status == "ok"}
    found = []
    for point in grid_points(study):
        best = minima.get(point.flops_budget)
        if best is not None and point.n_params and point.n_tokens and point.loss:
            optimal = best.n_tokens_opt / best.n_params_opt
            ratio = point.n_tokens / point.n_params / optimal
            found.append((np.log(ratio), np.log(point.loss / best.loss_opt), point.flops_budget))
    low, high = min(minima), max(minima)
    fall = np.log(minima[low].loss_opt / minima[high].loss_opt) / np.log(high / low)
    log_ratio, excess, budget = np.array(found).T
    return Excess(log_ratio=log_ratio, excess=excess, budget=budget, gamma=float(fall))


def published_excess(ratios: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the excess and the price of a published surface at some ratios, with C = 6 N D."""
    a, b, e, alpha, beta = published_surface(PUBLISHED)
    log_n = np.linspace(np.log(1e7), np.log(1e14), 20001)

    def loss(log_params: FloatArray, flops: npt.ArrayLike) -> FloatArray:
        log_d = np.log(flops) - np.log(6.0) - log_params
        return np.asarray(np.exp(e) + np.exp(a - alpha * log_params) + np.exp(b - beta * log_d))

    own = loss(log_n, PUBLISHED_FLOPS)
    shift = np.log(np.asarray(ratios, dtype=np.float64)) / 2  # M ∝ 1/N² at equal C
    reached = loss(log_n[own.argmin()] - shift, PUBLISHED_FLOPS)
    budgets = PUBLISHED_FLOPS * np.geomspace(1e-2, 1.0, 200)
    best = np.array([loss(log_n, budget).min() for budget in budgets])
    cheaper = np.exp(np.interp(-reached, -best, np.log(budgets)))
    return np.log(reached / own.min()), PUBLISHED_FLOPS / cheaper


def overtraining_table() -> list[str]:
    """Return excess and price at some ratios, with those of a published surface."""
    found = excess_of_grid()
    estimate = found.curve(RATIOS)
    low, high = np.percentile(found.draws(RATIOS), [5, 95], axis=0)
    published, published_price = published_excess(RATIOS)
    body = []
    for row, ratio in enumerate(RATIOS):
        price, *ends = (float(np.exp(one[row] / found.gamma)) for one in (estimate, low, high))
        body.append(
            [
                f"{ratio:g}" if ratio >= 1 else f"1/{1 / ratio:g}",
                percent(float(np.expm1(estimate[row]))),
                interval(price, (ends[0], ends[1]), 2),
                percent(float(np.expm1(published[row]))),
                f"{published_price[row]:.2f}",
            ]
        )
    return rows(
        ["D/N over the optimum", "loss", "price in C", "loss, Chinchilla at 1e21", "price, Chinchilla"], body
    )


def overtraining_figure() -> Figure:
    """Draw the excess of every run against its ratio, with the pooled curve and a published one."""
    found = excess_of_grid()
    grid = np.geomspace(np.exp(found.log_ratio.min()), np.exp(found.log_ratio.max()), 80)
    with style():
        figure, (axes,) = new_figure(width=7.6, height=3.4)
        ratio, colors = np.exp(found.log_ratio), budget_colors(found.budget.tolist())
        for budget, color in colors.items():
            own = found.budget == budget
            x, y = ratio[own], 100 * found.excess[own]
            axes.plot(x, y, "o", ms=4, color=color, label=f"{flops(budget)} FLOPs")
        low, high = np.percentile(found.draws(grid), [5, 95], axis=0)
        axes.fill_between(grid, 100 * low, 100 * high, color="#0072B2", alpha=0.2, lw=0)
        axes.plot(grid, 100 * found.curve(grid), color="#0072B2", label="all runs, 90 % band")
        axes.plot(grid, 100 * published_excess(grid)[0], color=GREY, ls="--", label="Chinchilla at 1e21")
        axes.set(xscale="log", xlabel="D/N over the optimum's", ylabel="loss over the optimum's, %")
        reach_ticks(axes.xaxis, (0.125, 0.25, 0.5, 1, 2, 4))
        side_legend(axes, labelcolor=DARK)
        return figure
