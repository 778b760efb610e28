"""The figure of a hyperparameter check: every corner is named, whichever panel it is in."""

import numpy as np

from sweep.report.figures.hparams import hparam_figure
from sweep.report.hparam_curves import HparamCurve


def curve(corner, axis):
    values = np.array([0.5, 1.0, 2.0])
    return HparamCurve(
        corner=corner, flops_budget=1e9, is_small=True, axis=axis, factor=values, difference=values,
        stderr=values, parabola_factor=values, parabola=values, best=None,
    )  # fmt: skip


def test_the_legend_names_corners_of_either_panel_once():
    figure = hparam_figure([curve("a", "lr"), curve("b", "lr"), curve("b", "batch")])
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["a", "b"]


def test_a_check_without_any_batch_has_a_legend_too():
    figure = hparam_figure([curve("a", "lr")])
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["a"]
