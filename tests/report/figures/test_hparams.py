"""The figure of a hyperparameter check names every corner, whichever panel it is in."""

import numpy as np
import pytest

from sweep.report.figures.hparams import hparam_figure
from sweep.report.series.hparams import HparamCurve


def curve(corner, axis):
    values = np.array([0.5, 1.0, 2.0])
    return HparamCurve(
        corner=corner, flops_budget=1e9, is_small=True, axis=axis, factor=values, difference=values,
        stderr=values, parabola_factor=values, parabola=values, best=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("curves", "corners"),
    [([("a", "lr"), ("b", "lr"), ("b", "batch")], ["a", "b"]), ([("a", "lr")], ["a"])],
)
def test_the_legend_names_corners_of_either_panel_once(curves, corners):
    figure = hparam_figure([curve(*names) for names in curves])
    *named, band = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert named == corners
    assert band == "within 0.01 of the rule"
