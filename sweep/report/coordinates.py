"""The figure of a coordinate check: how much a few steps change activations, over width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.report.figures.style import count_ticks, new_figure, style

PANEL_INCHES = 3.0
CLOSE = 1.3  # between a line's end and its neighbour's: nearer, the labels would overlap


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinateCurve:
    """One activation under one parametrisation and optimizer."""

    panel: str
    activation: str
    slope: float  # of ln(change) over ln(width)
    widths: tuple[int, ...]
    changes: tuple[float, ...]  # root mean square


def coordinate_curves(document: Mapping[str, Any]) -> list[CoordinateCurve]:
    """The curves of a coordinate check as its script writes it, in its order."""
    return [
        CoordinateCurve(
            panel=f"{check['optimizer']}, {check['parametrization']}",
            activation=activation,
            slope=slope,
            widths=tuple(row["d_model"] for row in check["widths"]),
            changes=tuple(row["change"][activation] for row in check["widths"]),
        )
        for check in document["checks"]
        for activation, slope in check["slopes"].items()
    ]


def coordinate_figure(curves: Sequence[CoordinateCurve], n_steps: int) -> Figure:
    """A panel for each optimizer and parametrisation, side by side; flat lines are what mup promises."""
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    with style():
        figure, axes = new_figure(width=PANEL_INCHES * len(panels), height=3.4, n_panels=len(panels))
        for axis, panel in zip(axes, panels, strict=True):
            draw_coordinates(axis, [curve for curve in curves if curve.panel == panel])
        axes[0].set_ylabel(f"change of activations in {n_steps} steps (rms)")
        low = min(change for curve in curves for change in curve.changes)
        high = max(change for curve in curves for change in curve.changes)
        for axis in axes:
            axis.set_ylim(low / CLOSE, high * CLOSE)
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def draw_coordinates(axes: Axes, curves: Sequence[CoordinateCurve]) -> None:
    """Change over width on log axes, a line for each activation."""
    for number, curve in enumerate(curves):
        axes.plot(curve.widths, curve.changes, "o-", ms=3, color=f"C{number}", label=curve.activation)
    steepest = max(curve.slope for curve in curves)
    axes.set_title(f"{curves[0].panel}\nsteepest slope {steepest:+.2f}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("width")
    count_ticks(axes.xaxis)
