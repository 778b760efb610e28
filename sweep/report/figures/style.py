"""Style, colours, ticks, legends and files of the figures."""

from __future__ import annotations

import io
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
# Viridis without its palest end: perceptually uniform, safe for colour-blind readers, dark enough on white.
BUDGET_COLORS = LinearSegmentedColormap.from_list(
    "budgets", [mpl.colormaps["viridis"](0.88 * step / 255) for step in range(256)]
)
OTHER_COLORS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SCREEN_DPI = 100
GREY, DARK = "0.45", "0.15"
DASHED = (0, (4, 2))
MAX_LEGEND_BUDGETS = 12  # more are shown by a colour bar
SHORT_RANGE = 300.0  # largest over smallest value of a log axis, below which 2 and 5 are labelled too
DECADES_ONLY = 300.0  # largest over smallest C, from which ticks at powers of ten suffice
TICK_RATIO = 1.7  # least ratio of neighbouring ticks of compute


class NotebookFigure(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=SCREEN_DPI)
        return content.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """Apply matplotlib's defaults and `STYLE`; the user's settings are restored afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def new_figure(*, width: float, height: float, n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of `width` by `height` inches with its own canvas, and its panels, left to right."""
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, n_panels, squeeze=False)[0])


def method_color(method: str, number: int) -> str:
    """The colour of a method; `number` picks one for a method without its own."""
    known = METHODS.get(method)
    return known.color if known else OTHER_COLORS[number % len(OTHER_COLORS)]


def budget_colors(budgets: Sequence[float]) -> dict[float, Any]:
    """Return a colour per budget, by its position on the log scale of all of them."""
    distinct = sorted(set(budgets))
    if not distinct:
        return {}
    span = math.log(distinct[-1] / distinct[0]) or 1.0
    return {budget: BUDGET_COLORS(math.log(budget / distinct[0]) / span) for budget in distinct}


def budget_legend(figure: Figure, axes: Axes, colors: Mapping[float, Any], keys: list[Line2D]) -> None:
    """Put budgets and symbols outside the axes; more than MAX_LEGEND_BUDGETS become a colour bar."""
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
    """Label a log axis of counts as 20k, 3M; at 2 and 5 too if it spans few decades."""
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high < SHORT_RANGE * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=14))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axis.set_minor_formatter(NullFormatter())


def loss_ticks(axis: Axis) -> None:
    """Label a log axis of losses with plain numbers."""
    low, high = axis.get_view_interval()
    step = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high > 2 * low else tuple(1 + 0.1 * tenth for tenth in range(90))
    axis.set_major_locator(LogLocator(subs=step, numticks=14))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def flops_ticks(axis: Axis, flops: Sequence[float]) -> None:
    """Label an axis of compute without overlaps: powers of ten over decades, else some of `flops`."""
    low, high = min(flops), max(flops)
    axis.set_minor_formatter(NullFormatter())
    if high / low >= DECADES_ONLY:
        return
    shown: list[float] = []
    for value in sorted(flops):
        if not shown or value > TICK_RATIO * shown[-1]:
            shown.append(value)
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FuncFormatter(lambda value, _: scientific(float(f"{value:.1e}"))))


def scientific(value: float) -> str:
    """Format a positive number as mathtext, 2.5e11 as 2.5 x 10^11.

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
    """Format a count with its SI-like suffix.

    >>> [short_count(value) for value in (500, 20_000, 1_500_000, 7e9, 2e12)]
    ['500', '20k', '1.5M', '7B', '2T']
    """
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg; returns both paths. The layout is computed once, for the PNG."""
    with style():
        _lay_out(figure)
        return [_save(figure, stem.with_name(f"{stem.name}.{suffix}")) for suffix in ("png", "svg")]


def save_file(figure: Figure, path: Path) -> Path:
    """Write a figure to `path`, which ends in .png or .svg; returns it."""
    with style():
        _lay_out(figure)
        return _save(figure, path)


def _lay_out(figure: Figure) -> None:
    """Compute the layout and drop its engine: with one, `savefig` draws every file twice."""
    figure.dpi = STYLE["savefig.dpi"]
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def _save(figure: Figure, path: Path) -> Path:
    """Write under a temporary name and rename, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    suffix = path.suffix[1:]
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    try:
        figure.savefig(temporary, format=suffix, metadata=metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
