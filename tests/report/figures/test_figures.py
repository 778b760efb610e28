"""The figures: written whole, the same bytes for the same numbers, nothing left behind."""

import matplotlib as mpl
import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.report.curves import isoflop_curves, optimum_curves, optimum_marks
from sweep.report.figures.draw import draw_all, isoflop_figure, optimum_figure
from sweep.report.figures.style import scientific, short_count
from tests.fit.planted import TINY, isoflop_points
from tests.report.figures.test_curves import planted_sweep

FIGURES = ("isoflop_curves", "optima", "training", "isoloss", "residuals", "clouds", "backtest")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def sweep():
    return planted_sweep()


@pytest.fixture(scope="module")
def drawn(sweep, tmp_path_factory):
    """Every figure of it, and matplotlib's settings before they were drawn."""
    directory = tmp_path_factory.mktemp("drawn") / "figures"
    before = dict(mpl.rcParams)
    return draw_all(*sweep, directory), directory, before


def test_every_figure_appears_as_png_and_svg(drawn):
    paths, directory, before = drawn
    assert [path.name for path in paths] == [
        f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")
    ]
    assert sorted(directory.iterdir()) == sorted(paths)
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(PNG_SIGNATURE if path.suffix == ".png" else b"<?xml")
    assert dict(mpl.rcParams) == before


@pytest.mark.ci
def test_the_same_numbers_give_the_same_bytes(sweep, drawn, tmp_path):
    first, second = drawn[0], draw_all(*sweep, tmp_path)
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_figures_without_numbers_are_not_drawn(sweep, tmp_path):
    _, points, _ = sweep
    one_budget = fit(points[:5], FitConfig(n_bootstrap=0))
    assert not one_budget.laws
    names = [path.name for path in draw_all(one_budget, points[:5], {}, tmp_path)]
    assert names == ["isoflop_curves.png", "isoflop_curves.svg"]


def test_legends_name_budgets_and_exponents_and_cover_no_data(sweep):
    found, points, _ = sweep
    figure = isoflop_figure(isoflop_curves(found, points))
    figure.canvas.draw()
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == r"$6.4\times10^{12}$ FLOPs"
    assert labels[-1] == "excluded run"
    assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())
    optima = optimum_figure(optimum_curves(found), optimum_marks(found))
    optima.canvas.draw()
    for panel, symbol in zip(optima.axes, "ab", strict=True):
        labels = [text.get_text() for text in panel.get_legend().get_texts()]
        assert labels[0].startswith(f"isoflop:  ${symbol}$ = 0.")
        assert not panel.get_legend().get_window_extent().overlaps(panel.get_window_extent())


def test_many_budgets_get_a_colour_bar():
    points = isoflop_points(TINY, tuple(np.geomspace(1e11, 1e15, 14)), n_sizes=4, span=3, labelled=True)
    found = fit(points, FitConfig(n_bootstrap=0))
    figure = isoflop_figure(isoflop_curves(found, points))
    assert len(figure.axes) == 2
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.5e11, r"$2.5\times10^{11}$"), (1e12, "$10^{12}$"), (1.27e16, r"$1.27\times10^{16}$")],
)
def test_scientific(value, text):
    assert scientific(value) == text


def test_short_count():
    assert [short_count(value) for value in (500, 2e4, 1.5e6, 7e9, 2e12)] == [
        "500",
        "20k",
        "1.5M",
        "7B",
        "2T",
    ]
