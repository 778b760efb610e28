"""Figures as files: complete, reproducible, and left out without numbers."""

import re

import matplotlib as mpl
import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.report.figures.draw import FIGURES, draw_all
from sweep.report.figures.style import laid_out, round_losses, scientific, short_count
from sweep.report.results import SweepResults
from sweep.report.series.optima import optimum_panels

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


def test_figures_of_a_paper_have_its_width_and_editable_text(sweep, tmp_path):
    for width, inches in (("column", 3.35), ("two-column", 6.9)):
        written = FIGURES["loss"].save(sweep, tmp_path / width, suffixes=("svg", "pdf"), width=width)
        assert [path.suffix for path in written] == [".svg", ".pdf"]
        drawn = written[0].read_text(encoding="utf-8")
        points = float(re.search(r'<svg[^>]*? width="([\d.]+)pt"', drawn, re.DOTALL)[1])
        assert points / 72 == pytest.approx(inches, rel=1e-3)
        assert "Loss against compute</text>" in drawn
        assert b"/Type /Font" in written[1].read_bytes()
        assert b"/Subtype /Type3" not in written[1].read_bytes()
    with laid_out("column"):
        assert (
            len({axes.get_position().x0 for axes in FIGURES["optima"].draw(optimum_panels(sweep)).axes}) == 1
        )


def test_losses_are_labelled_at_round_values_with_room_between():
    for low, high in ((3.3, 7.6), (4.4, 8.4), (2.11, 2.19), (1.7, 1.72), (0.9, 11.0)):
        found = round_losses(low, high)
        assert 3 <= len(found) <= 9
        assert all(low <= value <= high for value in found)
        gaps = np.diff(np.log(found))
        assert gaps.min() >= np.log(high / low) / 9


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
