"""Bootstrap draws of the exponent a and of D/N at the largest budget, by every method.

Legend: N parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.fit.laws.base import Law
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import count_ticks, method_color, new_figure, side_legend, style

FloatArray = npt.NDArray[np.float64]

MAX_DRAWS = 1000  # drawn


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cloud:
    """Bootstrap draws of one method's exponent and of its D/N at the largest budget."""

    method: str
    flops: float  # the largest fitted budget
    exponent: FloatArray  # (n,) n <= MAX_DRAWS
    tokens_per_param: FloatArray  # (n,)
    exponent_estimate: float
    tokens_per_param_estimate: float


def clouds(results: SweepResults) -> tuple[Cloud, ...]:
    """Return the draws of every method that has any; empty unless the points span several budgets."""
    flops_range = results.fit.flops_range
    if flops_range is None or flops_range[0] == flops_range[1]:
        return ()
    return tuple(_cloud(name, law, flops_range) for name, law in results.fit.laws.items() if law.n_draws)


def _cloud(name: str, law: Law, flops_range: tuple[float, float]) -> Cloud:
    low, high = flops_range
    ends, span = np.array([low, high]), math.log(high / low)
    draws, estimate = law.optimum_draws(ends), law.optimum(ends)
    log_n_draws, log_n = np.log(draws.n_params_opt), np.log(estimate.n_params_opt)
    return Cloud(
        method=name,
        flops=high,
        exponent=((log_n_draws[:, 1] - log_n_draws[:, 0]) / span)[:MAX_DRAWS],
        tokens_per_param=draws.tokens_per_param_opt[:MAX_DRAWS, 1],
        exponent_estimate=float((log_n[1] - log_n[0]) / span),
        tokens_per_param_estimate=float(estimate.tokens_per_param_opt[1]),
    )


def cloud_figure(methods: Sequence[Cloud]) -> Figure:
    """Draw the bootstrap draws of every method in the plane of a and D/N."""
    with style():
        figure, (axes,) = new_figure(width=6.2, height=4.2)
        for number, cloud in enumerate(methods):
            _draw_cloud(cloud, axes, method_color(cloud.method, number))
        axes.set_yscale("log")
        axes.set_xlabel("exponent  $a$  of  $N_{opt} \\propto C^a$")
        axes.set_ylabel("tokens per parameter at the largest budget")
        axes.set_title("Bootstrap draws", loc="left")
        count_ticks(axes.yaxis)
        side_legend(axes)
        return figure


def _draw_cloud(cloud: Cloud, axes: Axes, color: Any) -> None:
    """Draw one method's draws, and its estimate on top."""
    axes.plot(cloud.exponent, cloud.tokens_per_param, ".", color=color, ms=3, alpha=0.25, mew=0, zorder=2)
    axes.plot(
        [cloud.exponent_estimate],
        [cloud.tokens_per_param_estimate],
        "D",
        color=color,
        mec="white",
        ms=7,
        zorder=4,
        label=cloud.method,
    )
