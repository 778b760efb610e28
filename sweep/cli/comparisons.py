"""The verbs `compare` and `fit-hparams`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.arguments import AsJson, ConfigDir, given_path, stored_experiment
from sweep.cli.laws import Columns, budget_of, columns_of, fit_settings
from sweep.errors import InputError
from sweep.report.text.terminal import print_json, print_text

if TYPE_CHECKING:  # scipy and pandas are slow to import, and --help does not need them
    from sweep.config import FitConfig
    from sweep.fit.compare.comparison import Comparison

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="A B",
        help="Two sweeps, arms of a sweep (DIR:ARM) or tables, or one sweep with two arms; then settings of "
        "the fit, such as fit.confidence=0.9.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--flops",
        metavar="FLOPS",
        help="Target budget, in training FLOPs; by default 10 times the largest budget of both.",
    ),
]
FigurePath = Annotated[
    Path | None,
    typer.Option(
        "--figure", metavar="PATH", help="Draw the comparison to a .png or .svg file.", parser=given_path
    ),
]
FIGURE_SUFFIXES = (".png", ".svg")


def compare(
    sources: Sources,
    flops: Target = None,
    figure: FigurePath = None,
    column: Columns = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare two arms: the factor of compute, tokens and seconds by which B is better than A.

    Nothing is written except the figure.
    """
    from sweep.study.compare import compare_sources

    given = [source for source in sources if not source.lstrip("+~").startswith(("fit.", "fit="))]
    overrides = [source for source in sources if source not in given]
    if figure is not None and figure.suffix not in FIGURE_SUFFIXES:
        raise InputError(f"--figure {figure} is not {' or '.join(FIGURE_SUFFIXES)}: give such a file")
    found = compare_sources(
        given,
        _settings(given, overrides, config_dir),
        flops=None if flops is None else budget_of(flops),
        columns=columns_of(column or ()),
    )
    drawn = None if figure is None else _draw(found, figure)
    if as_json:
        print_json(found.to_json())
        return
    from sweep.report.text.comparison import comparison_text

    print_text(comparison_text(found, closing=None if drawn is None else f"picture: {drawn}"))


def _settings(given: list[str], overrides: list[str], config_dir: Path | None) -> FitConfig:
    """Return the settings of the fit: those of the first sweep, or the defaults, with overrides."""
    from sweep.study.compare import sweep_of

    for source in given[:1]:
        sweep_dir = sweep_of(source)
        if sweep_dir is not None:
            return stored_experiment(sweep_dir, overrides, config_dir).fit
    return fit_settings(overrides, config_dir)


def _draw(found: Comparison, path: Path) -> Path:
    from sweep.report.figures.comparison import comparison_figure  # matplotlib is slow to import
    from sweep.report.figures.style import save_file

    return save_file(comparison_figure(found), path)
