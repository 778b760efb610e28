"""The registry of figures, and their files: PNG, SVG or PDF, for a screen or the columns of a paper.

To add a figure, write its numbers in `sweep/report/series/` (frozen records, and a pure function of
`SweepResults` that returns them), the function that draws them here, and its entry in `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from matplotlib import figure as mpl

from sweep.report.figures.arms import arm_figure
from sweep.report.figures.backtest import backtest_figure
from sweep.report.figures.clouds import cloud_figure
from sweep.report.figures.hparams import hparam_figure
from sweep.report.figures.isoflop import isoflop_figure
from sweep.report.figures.isoloss import isoloss_figure
from sweep.report.figures.optima import optimum_figure
from sweep.report.figures.residuals import residual_figure
from sweep.report.figures.style import add_caption, laid_out, save_figure
from sweep.report.figures.training import training_figure
from sweep.report.figures.utilisation import utilisation_figure
from sweep.report.figures.validations import validation_figure
from sweep.report.hparams import HparamReport
from sweep.report.results import SweepResults, caption
from sweep.report.series.arms import arm_curves
from sweep.report.series.backtest import backtest_marks
from sweep.report.series.clouds import clouds
from sweep.report.series.hparams import check_curves, hparam_curves
from sweep.report.series.isoflop import isoflop_curves
from sweep.report.series.isoloss import isoloss
from sweep.report.series.optima import loss_panels, optimum_panels, ratio_panels
from sweep.report.series.residuals import residuals
from sweep.report.series.training import training_curves
from sweep.report.series.utilisation import device_rates
from sweep.report.series.validations import comparisons

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Figure(Generic[Record]):
    """One figure: the numbers that it shows, and the function that draws them."""

    numbers: Callable[[SweepResults], Sequence[Record]]  # empty: the figure is left out
    draw: Callable[[Sequence[Record]], mpl.Figure]

    def save(
        self,
        results: SweepResults,
        stem: Path,
        *,
        suffixes: Sequence[str] = ("png", "svg"),
        width: str = "screen",
    ) -> list[Path]:
        """Write `stem` with each suffix, laid out for a width; returns the paths, none without numbers."""
        records = self.numbers(results)
        if not records:
            return []
        with laid_out(width):
            figure = self.draw(records)
            add_caption(figure, caption(results))
            return _save(figure, stem, suffixes)


FIGURES: dict[str, Figure[Any]] = {  # by file name
    "isoflop_curves": Figure(isoflop_curves, isoflop_figure),
    "loss": Figure(loss_panels, optimum_figure),
    "optima": Figure(optimum_panels, optimum_figure),
    "tokens_per_param": Figure(ratio_panels, optimum_figure),
    "training": Figure(training_curves, training_figure),
    "isoloss": Figure(isoloss, isoloss_figure),
    "residuals": Figure(residuals, residual_figure),
    "clouds": Figure(clouds, cloud_figure),
    "backtest": Figure(backtest_marks, backtest_figure),
    "validations": Figure(comparisons, validation_figure),
    "utilisation": Figure(device_rates, utilisation_figure),
    "hparams": Figure(hparam_curves, hparam_figure),
}


def draw_all(
    results: SweepResults,
    directory: Path,
    *,
    suffixes: Sequence[str] = ("png", "svg"),
    width: str = "screen",
) -> list[Path]:
    """Write every figure that has numbers into `directory`; returns the paths.

    `width` is a key of LAYOUTS. Files appear by rename; the same numbers give the same bytes.
    """
    return [
        path
        for name, figure in FIGURES.items()
        for path in figure.save(results, directory / name, suffixes=suffixes, width=width)
    ]


def draw_arms(
    arms: Mapping[str, SweepResults],
    directory: Path,
    *,
    suffixes: Sequence[str] = ("png", "svg"),
    width: str = "screen",
) -> list[Path]:
    """Write the figure of the arms overlaid; returns the paths, none for fewer than two laws."""
    records = arm_curves(arms)
    if not records:
        return []
    with laid_out(width):
        figure = arm_figure(records)
        add_caption(figure, caption(next(iter(arms.values()))))
        return _save(figure, directory / "arms", suffixes)


def draw_hparams(report: HparamReport, directory: Path) -> list[Path]:
    """Write the figure of a hyperparameter check alone, which needs no fit; returns the paths."""
    records = check_curves(report)
    return _save(hparam_figure(records), directory / "hparams", ("png", "svg")) if records else []


def _save(figure: mpl.Figure, stem: Path, suffixes: Sequence[str]) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    return save_figure(figure, stem, suffixes)
