"""Contours of the fitted loss, compared with a search of the grid."""

import math
from itertools import pairwise

import numpy as np

from sweep.report.figures.isoloss import isoloss_figure
from sweep.report.series.isoloss import MAX_LEVELS, isoloss


def test_the_frontier_is_the_lowest_loss_of_every_column(surfaces):
    (contours,) = isoloss(surfaces)
    step = contours.n_params[1] / contours.n_params[0]
    for column in (0, 40, 100):
        best = contours.n_params[np.argmin(contours.loss[:, column])]
        assert abs(math.log(best / contours.frontier_n_params[column])) <= math.log(step)
    assert len(contours.point_loss) == 30
    assert 3 <= len(contours.levels) <= MAX_LEVELS
    steps = np.diff(contours.levels)
    assert np.allclose(steps, steps[0])
    assert contours.levels[-1] <= contours.point_loss.max() < contours.levels[-1] + steps[0]


def test_contours_are_cut_only_at_their_labels(surfaces):
    """The gaps for the labels are computed on the axes as they are finally scaled."""
    figure = isoloss_figure(isoloss(surfaces))
    figure.draw_without_rendering()
    (lines,) = [child for child in figure.axes[0].collections if hasattr(child, "levels")]
    to_pixels = figure.axes[0].transData.transform
    gaps = []
    for path in lines.get_paths():
        starts = np.flatnonzero(path.codes == path.MOVETO)
        ends = [to_pixels(piece) for piece in np.split(path.vertices, starts) if len(piece)]
        gaps += [float(np.hypot(*(after[0] - before[-1]))) for before, after in pairwise(ends)]
    assert gaps
    assert max(gaps) < 0.15 * figure.axes[0].bbox.width
