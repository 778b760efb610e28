"""Residuals of ln L at the fitted points, for every law that gives a loss at each.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sweep.fit.laws.base import Law
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.fit.table.observations import Observations
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import (
    GREY,
    MAX_ACROSS,
    flops_ticks,
    method_color,
    new_figure,
    side_legend,
    style,
)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Residuals:
    """Residuals of one method: ln L minus its prediction at each fitted point."""

    method: str
    flops: FloatArray  # (n,)
    residual: FloatArray  # (n,) NaN where the law gives no loss
    huber_delta: float | None  # residuals up to this size enter the objective squared; None without one
    sd: float  # root mean square


def residuals(results: SweepResults) -> tuple[Residuals, ...]:
    """Return the residuals of every law that gives a loss for each run.

    Those of `isoflop` are about the parabola of the run's budget, and runs outside all budgets are NaN.
    """
    observations = results.observations()
    found = []
    for name, law in results.fit.laws.items():
        predicted = (
            _on_parabolas(observations, law)
            if isinstance(law, IsoflopLaw)
            else law.predicted_losses(observations)
        )
        if predicted is not None:
            found.append(_residuals(name, law, observations, predicted))
    return tuple(found)


def _on_parabolas(observations: Observations, law: IsoflopLaw) -> FloatArray:
    """Return the loss of each run on the parabola of its budget."""
    predicted = np.full(len(observations), np.nan)
    for budget in law.budgets:
        if budget.parabola is not None:
            near = np.isclose(observations.budgets, budget.flops_budget)
            rows = np.isin(observations.budget, np.flatnonzero(near))
            predicted[rows] = budget.parabola.loss(observations.n_params[rows])
    return predicted


def _residuals(name: str, law: Law, observations: Observations, predicted: FloatArray) -> Residuals:
    residual = np.log(observations.loss) - np.log(predicted)
    return Residuals(
        method=name,
        flops=observations.flops,
        residual=residual,
        huber_delta=getattr(law, "huber_delta", None),
        sd=float(np.sqrt(np.nanmean(residual**2))),
    )


def residual_figure(methods: Sequence[Residuals]) -> Figure:
    """Draw residuals of ln L against C, a panel per method, on one scale."""
    with style():
        figure, panels = new_figure(width=3.2 * len(methods), height=3.0, n_panels=len(methods))
        most = 1.1 * max(float(np.nanmax(np.abs(method.residual))) for method in methods)
        for number, (method, axes) in enumerate(zip(methods, panels, strict=True)):
            _draw_residuals(method, axes, method_color(method.method, number))
            axes.set_xscale("log")
            axes.set_ylim(-most, most)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            flops_ticks(axes.xaxis, method.flops.tolist(), ratio=3.0)
            axes.set_xlabel("training compute  $C$  (FLOPs)")
            axes.set_ylabel("$\\ln L - \\ln L_{predicted}$")
        side_legend(panels[min(len(panels), MAX_ACROSS) - 1])
        return figure


def _draw_residuals(method: Residuals, axes: Axes, color: Any) -> None:
    """Draw the points around zero, ± one standard deviation dotted and ± the Huber delta shaded."""
    axes.axhline(0.0, color=GREY, lw=0.8)
    if method.huber_delta is not None:
        label = f"± Huber δ = {method.huber_delta:g}"
        axes.axhspan(-method.huber_delta, method.huber_delta, color="0.85", lw=0, zorder=0, label=label)
    axes.axhline(-method.sd, color=GREY, lw=0.8, ls=":", label="± sd")
    axes.axhline(method.sd, color=GREY, lw=0.8, ls=":")
    axes.plot(method.flops, method.residual, "o", color=color, ms=3.6, mew=0, label="run")
    axes.set_title(f"{method.method}:  sd = {method.sd:.2%}", loc="left")
