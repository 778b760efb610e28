"""Residuals of ln L at the fitted points, for every fitted surface.

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

from sweep.fit.methods.overtraining import OvertrainingLaw
from sweep.fit.methods.parametric import ParametricLaw
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import GREY, flops_ticks, method_color, new_figure, style

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Residuals:
    """Residuals of one method: ln L minus its prediction at each fitted point."""

    method: str
    flops: FloatArray  # (n,)
    residual: FloatArray  # (n,)
    huber_delta: float  # residuals up to this size enter the objective squared
    sd: float  # root mean square


def residuals(results: SweepResults) -> tuple[Residuals, ...]:
    """Return the residuals of every fitted surface in total N and D."""
    return tuple(
        _residuals(name, law, results)
        for name, law in results.fit.laws.items()
        if isinstance(law, (ParametricLaw, OvertrainingLaw))
    )


def _residuals(name: str, law: ParametricLaw | OvertrainingLaw, results: SweepResults) -> Residuals:
    observations = results.observations()
    residual = np.log(observations.loss) - np.log(law.loss(observations.n_params, observations.n_tokens))
    return Residuals(
        method=name,
        flops=observations.flops,
        residual=residual,
        huber_delta=law.huber_delta,
        sd=float(np.sqrt((residual**2).mean())),
    )


def residual_figure(methods: Sequence[Residuals]) -> Figure:
    """Draw residuals of ln L against C, a panel per method."""
    with style():
        figure, panels = new_figure(width=4.2 * len(methods), height=3.4, n_panels=len(methods))
        for number, (method, axes) in enumerate(zip(methods, panels, strict=True)):
            _draw_residuals(method, axes, method_color(method.method, number))
            axes.set_xscale("log")
            flops_ticks(axes.xaxis, method.flops.tolist())
            axes.set_xlabel("training compute  $C$  (FLOPs)")
        panels[0].set_ylabel("residual of  $\\ln L$")
        return figure


def _draw_residuals(method: Residuals, axes: Axes, color: Any) -> None:
    """Draw the points around zero, ± the Huber delta shaded and ± one standard deviation dotted."""
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.axhspan(-method.huber_delta, method.huber_delta, color="0.85", lw=0, zorder=0)
    for side in (-method.sd, method.sd):
        axes.axhline(side, color=GREY, lw=0.8, ls=":")
    axes.plot(method.flops, method.residual, "o", color=color, ms=3.6, mew=0)
    axes.set_title(f"{method.method}:  sd = {method.sd:.2g}", loc="left")
