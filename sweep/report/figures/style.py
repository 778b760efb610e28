"""Style, colours, ticks, legends and files of the figures."""

from __future__ import annotations

import io
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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
from matplotlib.transforms import ScaledTranslation

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
    "pdf.fonttype": 42,  # text stays text, for editing
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "sweep",
}
# Viridis without its palest end: perceptually uniform, safe for colour-blind readers, dark enough on white.
BUDGET_COLORS = LinearSegmentedColormap.from_list(
    "budgets", [mpl.colormaps["viridis"](0.82 * step / 255) for step in range(256)]
)
OTHER_COLORS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SCREEN_DPI = 100
GREY, DARK = "0.45", "0.15"
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe & Ito 2008
DASHED = (0, (4, 2))
CAPTION_SIZE = 7.5
MAX_ACROSS = 4  # panels next to each other on a screen
MAX_LEGEND_BUDGETS = 12  # more are shown by a colour bar
SHORT_RANGE = 300.0  # largest over smallest value of a log axis, below which 2 and 5 are labelled too
MAX_LOSS_TICKS = 8
EVEN_RATIO = 1.5  # largest over smallest loss, below which ticks are evenly spaced
LOSS_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
DECADES_ONLY = 300.0  # largest over smallest C, from which ticks at powers of ten suffice
REACH_RATIO = 1.3  # the same, of reaches
TICK_RATIO = 1.7  # least ratio of neighbouring ticks of compute


class NotebookFigure(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=SCREEN_DPI)
        return content.getvalue()


@dataclass(frozen=True, slots=True)
class Layout:
    """Width and text size of figures for a medium."""

    width: float | None  # inches; None: as designed, for a screen
    font_scale: float
    narrow: bool = False  # panels below each other, and legends below the axes


LAYOUTS = {
    "screen": Layout(None, 1.0),
    "column": Layout(3.35, 0.78, narrow=True),
    "two-column": Layout(6.9, 0.85),
}
FONT_SIZES: tuple[Any, ...] = (
    "axes.labelsize",
    "axes.titlesize",
    "font.size",
    "legend.fontsize",
    "legend.title_fontsize",
)
NARROW_HEIGHT = 2.5  # inches of a panel in a column
LEGEND_GAP, LEGEND_ROW = 0.5, 0.19  # inches, at full size of text
_layout: ContextVar[Layout] = ContextVar("layout", default=LAYOUTS["screen"])


@contextmanager
def laid_out(name: str) -> Iterator[None]:
    """Lay out the figures drawn inside for a key of LAYOUTS."""
    token = _layout.set(LAYOUTS[name])
    try:
        yield
    finally:
        _layout.reset(token)


@contextmanager
def style() -> Iterator[None]:
    """Apply matplotlib's defaults and `STYLE` at the layout's size of text; restores the user's settings."""
    scale = _layout.get().font_scale
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        for name in FONT_SIZES:
            mpl.rcParams[name] = STYLE[name] * scale
        yield


def new_figure(*, width: float, height: float, n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure with its own canvas, and its panels in reading order.

    It is `width` by `height` inches on a screen; in a two-column layout its width is that of the page, and in
    a column the panels stand below each other.
    """
    layout = _layout.get()
    size, n_rows, n_columns = (width, height), 1, n_panels
    if layout.width is not None and layout.narrow:
        size, n_rows, n_columns = (layout.width, NARROW_HEIGHT * n_panels), n_panels, 1
    elif layout.width is not None:
        size = (layout.width, height * math.sqrt(min(1.0, layout.width / width)))
    elif n_panels > MAX_ACROSS:
        n_rows = math.ceil(n_panels / MAX_ACROSS)
        n_columns, size = MAX_ACROSS, (width * MAX_ACROSS / n_panels, height * n_rows)
    figure = NotebookFigure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for empty in panels[n_panels:]:
        empty.set_axis_off()
    return figure, panels[:n_panels]


def side_legend(axes: Axes, **options: Any) -> None:
    """Put a legend to the right of the axes, or below them in a column."""
    if _layout.get().narrow:
        below_legend(axes, n_columns=2, **options)
    else:
        options.setdefault("handlelength", 1.8)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), **options)


def below_legend(axes: Axes, *, n_columns: int = 1, **options: Any) -> None:
    """Put a legend below the labels of the x axis, and make the figure higher by its rows.

    Panels next to each other have room for the legend of the first.
    """
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    gap = ScaledTranslation(0.0, -LEGEND_GAP * _layout.get().font_scale, figure.dpi_scale_trans)
    legend = axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=axes.transAxes + gap,
        ncols=n_columns,
        handlelength=1.8,
        **options,
    )
    n_rows = math.ceil(len(legend.get_texts()) / n_columns)
    if _layout.get().narrow or axes is figure.axes[0]:
        row = LEGEND_ROW * _layout.get().font_scale
        figure.set_figheight(figure.get_figheight() + row * n_rows)


def add_caption(figure: Figure, text: str) -> None:
    """Write what a figure is drawn from below it: corpus, runs, seeds and the level of intervals."""
    if text:
        figure.supxlabel(
            text, fontsize=CAPTION_SIZE * _layout.get().font_scale, color=GREY, x=0.01, ha="left"
        )


def method_color(method: str, number: int) -> str:
    """The colour of a method; `number` picks one for a method without its own."""
    known = METHODS.get(method)
    return known.color if known else OTHER_COLORS[number % len(OTHER_COLORS)]


def other_color(number: int) -> str:
    """Return a colour for things without their own, such as arms; Okabe & Ito 2008."""
    palette = (BLUE, ORANGE, *OTHER_COLORS)
    return palette[number % len(palette)]


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
            for budget in sorted(colors)
        ]
        side_legend(axes, handles=handles + keys)
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
    """Label a log axis of losses with plain, round numbers, as many as have room."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(FixedLocator(round_losses(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def round_losses(low: float, high: float) -> list[float]:
    """Return round losses between two limits, at most MAX_LOSS_TICKS.

    They are evenly spaced over a short range, and closer where the log axis is wider over a long one.

    >>> round_losses(3.3, 7.6), round_losses(2.11, 2.19)
    ([3.5, 4.0, 4.5, 5.0, 6.0, 7.0], [2.12, 2.14, 2.16, 2.18])
    """
    for step in LOSS_STEPS:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        found = [round(k * step, 3) for k in range(first, last + 1)]
        if high < EVEN_RATIO * low:
            if len(found) <= MAX_LOSS_TICKS:
                return found
            continue
        kept: list[float] = []
        for value in found:  # no closer than a share of the axis
            if not kept or math.log(value / kept[-1]) >= math.log(high / low) / MAX_LOSS_TICKS:
                kept.append(value)
        if len(found) <= 2 * MAX_LOSS_TICKS:
            return kept
    return kept


def flops_ticks(axis: Axis, flops: Sequence[float], ratio: float = TICK_RATIO) -> None:
    """Label an axis of compute without overlaps: powers of ten over decades, else some of `flops`."""
    low, high = min(flops), max(flops)
    axis.set_minor_formatter(NullFormatter())
    if high / low >= DECADES_ONLY:
        return
    shown: list[float] = []
    for value in sorted(flops):
        if not shown or value > ratio * shown[-1]:
            shown.append(value)
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FuncFormatter(lambda value, _: scientific(float(f"{value:.1e}"))))


def reach_ticks(axis: Axis, reaches: Sequence[float]) -> None:
    """Label a log axis at the reaches that occur, as many as stand apart."""
    shown: list[float] = []
    for value in sorted(reaches):
        if not shown or value > REACH_RATIO * shown[-1]:
            shown.append(value)
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


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


def save_figure(figure: Figure, stem: Path, suffixes: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write `stem` with each suffix; returns the paths. The layout is computed once, for the PNG."""
    with style():
        _lay_out(figure)
        return [_save(figure, stem.with_name(f"{stem.name}.{suffix}")) for suffix in suffixes]


def save_file(figure: Figure, path: Path) -> Path:
    """Write a figure to `path`, which ends in .png or .svg; returns it."""
    return save_figure(figure, path.with_suffix(""), (path.suffix[1:],))[0]


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
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix, {"Software": None})
    try:
        figure.savefig(temporary, format=suffix, metadata=metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
