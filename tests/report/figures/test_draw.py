"""Figures as files: complete, reproducible, and left out without numbers."""

import matplotlib as mpl
import pytest

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.report.figures.draw import FIGURES, draw_all
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import scientific, short_count

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NOT_MEASURED = ("validations", "utilisation", "hparams")
"""Figures without numbers: planted points have no times, no validation and no hyperparameter check."""


@pytest.fixture(scope="module")
def drawn(sweep, tmp_path_factory):
    """Paths of every figure, their directory, and matplotlib's settings from before."""
    directory = tmp_path_factory.mktemp("drawn") / "figures"
    before = dict(mpl.rcParams)
    return draw_all(sweep, directory), directory, before


def test_every_figure_appears_as_png_and_svg(drawn):
    paths, directory, before = drawn
    assert [path.name for path in paths] == [
        f"{name}.{suffix}" for name in FIGURES if name not in NOT_MEASURED for suffix in ("png", "svg")
    ]
    assert sorted(directory.iterdir()) == sorted(paths)
    for path in paths:
        assert path.read_bytes().startswith(PNG_SIGNATURE if path.suffix == ".png" else b"<?xml")
    assert dict(mpl.rcParams) == before


@pytest.mark.ci
def test_the_same_numbers_give_the_same_bytes(sweep, drawn, tmp_path):
    first, second = drawn[0], draw_all(sweep, tmp_path)
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_figures_without_numbers_are_left_out(sweep, tmp_path):
    points = sweep.points[:5]
    one_budget = fit(points, FitConfig(n_bootstrap=0))
    assert not one_budget.laws
    results = SweepResults(fit=one_budget, points=points)
    assert [path.name for path in draw_all(results, tmp_path)] == ["isoflop_curves.png", "isoflop_curves.svg"]
    assert {name for name, figure in FIGURES.items() if figure.numbers(results)} == {"isoflop_curves"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.5e11, r"$2.5\times10^{11}$"), (1e12, "$10^{12}$"), (1.27e16, r"$1.27\times10^{16}$")],
)
def test_scientific(value, text):
    assert scientific(value) == text


def test_short_count():
    values = {500: "500", 2e4: "20k", 1.5e6: "1.5M", 7e9: "7B", 2e12: "2T"}
    assert {value: short_count(value) for value in values} == values
