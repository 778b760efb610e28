"""How the figures look and how they are written: style, colours, ticks, legends, files."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from sweep.fit.fit import METHODS

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.title_fontsize": 9,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "sweep",
}
# Viridis without its palest end: equal steps in lightness, told apart in every colour vision, dark enough
# on white.
BUDGET_COLORS = LinearSegmentedColormap.from_list(
    "budgets", [mpl.colormaps["viridis"](0.88 * step / 255) for step in range(256)]
)
OTHER_COLORS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00")
GREY = "0.45"
MAX_LEGEND_BUDGETS = 12
SHORT_RANGE = 300.0  # of a log axis: below, ticks at 2 and 5 are labelled too


MIN_DECADES = 300.0  # largest over smallest C from which powers of ten are enough ticks
TICK_RATIO = 1.7  # between two ticks of compute


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults and ours on top, whatever the user's settings; restored afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def new_figure(*, width: float, height: float, n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `width` by `height` inches with its own canvas, and its panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, n_panels, squeeze=False)[0])


def method_color(method: str, number: int) -> str:
    """The colour of a method; `number` picks one for a method without its own."""
    known = METHODS.get(method)
    return known.color if known else OTHER_COLORS[number % len(OTHER_COLORS)]


def budget_colors(budgets: Sequence[float]) -> dict[float, Any]:
    """A colour per budget, by its place on the log scale of all of them."""
    distinct = sorted(set(budgets))
    if not distinct:
        return {}
    span = math.log(distinct[-1] / distinct[0]) or 1.0
    return {budget: BUDGET_COLORS(math.log(budget / distinct[0]) / span) for budget in distinct}


def budget_legend(figure: Figure, axes: Axes, colors: Mapping[float, Any], keys: list[Line2D]) -> None:
    """Budgets and symbols outside the axes, where they cover nothing; a colour bar for many budgets."""
    if len(colors) <= MAX_LEGEND_BUDGETS:
        handles = [
            Line2D([], [], color=colors[budget], lw=2.5, label=f"{scientific(budget)} FLOPs")
            for budget in sorted(colors, reverse=True)
        ]
        axes.legend(handles=handles + keys, loc="upper left", bbox_to_anchor=(1.01, 1.0), handlelength=1.8)
        return
    norm = LogNorm(min(colors), max(colors))
    figure.colorbar(ScalarMappable(norm, BUDGET_COLORS), ax=axes, label="budget (FLOPs)", pad=0.01)
    axes.legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(keys))


def count_ticks(axis: Axis) -> None:
    """Counts as 20k, 3M on a log axis, with labels between the decades where it spans few of them."""
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high < SHORT_RANGE * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=14))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axis.set_minor_formatter(NullFormatter())


def loss_ticks(axis: Axis) -> None:
    """Losses as plain numbers on a log axis."""
    low, high = axis.get_view_interval()
    step = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high > 2 * low else tuple(1 + 0.1 * tenth for tenth in range(90))
    axis.set_major_locator(LogLocator(subs=step, numticks=14))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def flops_ticks(axis: Axis, flops: Sequence[float]) -> None:
    """Ticks of compute that stay apart: powers of ten over decades, else some of the values themselves."""
    low, high = min(flops), max(flops)
    axis.set_minor_formatter(NullFormatter())
    if high / low >= MIN_DECADES:
        return
    shown: list[float] = []
    for value in sorted(flops):
        if not shown or value > TICK_RATIO * shown[-1]:
            shown.append(value)
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FuncFormatter(lambda value, _: scientific(float(f"{value:.1e}"))))


def scientific(value: float) -> str:
    """A positive number as mathtext, 2.5e11 as 2.5 x 10^11.

    >>> scientific(2.5e11)
    '$2.5\\\\times10^{11}$'
    >>> scientific(1e12)
    '$10^{12}$'
    """
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else f"${mantissa}\\times{power}$"


def short_count(value: float) -> str:
    """A count with its SI-like letter.

    >>> [short_count(value) for value in (500, 20_000, 1_500_000, 7e9, 2e12)]
    ['500', '20k', '1.5M', '7B', '2T']
    """
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem` as PNG and SVG; returns both paths. They are laid out once, at the PNG's resolution."""
    with style():
        _lay_out(figure)
        return [_save(figure, stem.with_name(f"{stem.name}.{suffix}")) for suffix in ("png", "svg")]


def _lay_out(figure: Figure) -> None:
    """For good: with an engine, `savefig` draws every file twice, the first time to no end but the layout."""
    figure.dpi = STYLE["savefig.dpi"]
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def _save(figure: Figure, path: Path) -> Path:
    """Write by unique temporary name and rename, so that nobody reads half a figure."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    suffix = path.suffix[1:]
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    try:
        figure.savefig(temporary, format=suffix, metadata=metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
