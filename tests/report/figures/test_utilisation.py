"""Throughput by device, compared with rates worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from sweep.records import Point
from sweep.report.figures.utilisation import utilisation_figure
from sweep.report.series.utilisation import device_rates

H200 = "NVIDIA H200"


def point(n_params, flops, wall_time_s, device=H200, **more):
    return Point(n_params=n_params, flops=flops, wall_time_s=wall_time_s, device=device, **more)


def rates(sweep, *points):
    return device_rates(dataclasses.replace(sweep, points=points))


def test_rates_by_device_with_the_share_of_the_peak(sweep):
    h200, laptop = rates(
        sweep,
        point(2e6, 989e12 * 20, 40),
        point(1e6, 989e12 * 10, 60),
        point(1e6, 4e10, 2, device="a laptop"),
        point(3e6, 1e15, None),
        point(3e6, 1e15, 1, status="diverged"),
    )
    assert (h200.device, laptop.device) == (H200, "a laptop")
    assert h200.n_params.tolist() == [1e6, 2e6]
    assert h200.flops_per_second.tolist() == pytest.approx([989e12 / 6, 989e12 / 2])
    assert h200.utilisation == pytest.approx(0.3)
    assert (laptop.peak_flops_per_second, laptop.utilisation) == (None, None)
    assert laptop.flops_per_second.tolist() == [2e10]


def test_the_legend_names_the_share_of_the_peak(sweep):
    figure = utilisation_figure(rates(sweep, point(1e6, 989e12 * 30, 100), point(4e6, 989e12 * 40, 100)))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [f"{H200}: 35.0% of peak"]
    figure.canvas.draw()
