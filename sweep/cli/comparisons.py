"""The verbs `compare` and `fit-hparams`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.arguments import (
    AsJson,
    Columns,
    ConfigDir,
    Where,
    budget_of,
    check_fit_only,
    columns_of,
    fit_settings,
    given_path,
    stored_experiment,
)
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
    """Compare two sweeps or arms by their compute.

    The result is the factor of compute, tokens and seconds by which B is better than A. Nothing
    is written except the figure.
    """
    from sweep.study.compare import compare_sources

    overrides = [source for source in sources if _is_setting(source)]
    given = [source for source in sources if source not in overrides]
    check_fit_only(overrides)
    if figure is not None and figure.suffix not in FIGURE_SUFFIXES:
        raise InputError(f"--figure {figure} is not {' or '.join(FIGURE_SUFFIXES)}: give such a file")
    if figure is not None and not figure.absolute().parent.is_dir():
        raise InputError(f"--figure {figure}: the directory {figure.parent} is not found: create it first")
    if figure is not None and figure.is_dir():
        raise InputError(f"--figure {figure} is a directory: give a file, as {figure}/compare.png")
    found = compare_sources(
        given,
        _settings(given, overrides, config_dir),
        flops=None if flops is None else budget_of(flops),
        columns=columns_of(column or ()),
    )
    drawn = None if figure is None else _draw(found, figure)
    if as_json:
        print_json(found.to_json() | {"next": [] if found.next is None else [found.next]})
        return
    from sweep.report.text.comparison import comparison_text

    print_text(comparison_text(found, closing=None if drawn is None else f"picture: {drawn}"))


def _is_setting(source: str) -> bool:
    """Return true for KEY=VALUE; false for a path, and for PATH:ARM with an arm such as optimizer=muon."""
    key, equals, _ = source.partition("=")
    return bool(equals) and not {":", "/"} & set(key) and not Path(source).exists()


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


HparamSource = Annotated[
    Path,
    typer.Argument(
        metavar="DIR|TABLE",
        help="Directory of a sweep whose arms or check vary the learning rate or the batch, or a table.",
        parser=given_path,
    ),
]
LrColumn = Annotated[
    str | None, typer.Option("--lr", metavar="COLUMN", help="Column of the peak learning rate in the table.")
]
BatchColumn = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="COLUMN",
        help="Column of the tokens per step in the table, or one times a number, such as 'bs * 2048'.",
    ),
]
WindowFraction = Annotated[
    float,
    typer.Option(
        "--window",
        metavar="FRACTION",
        help="Fit the parabola of a cell to its runs with a loss within this fraction of the lowest.",
    ),
]
Confidence = Annotated[
    float, typer.Option("--confidence", metavar="FRACTION", help="Confidence of the intervals.")
]


def fit_hparams(
    source: HparamSource,
    column: Columns = None,
    lr: LrColumn = None,
    batch: BatchColumn = None,
    where: Where = None,
    window: WindowFraction = 0.02,
    confidence: Confidence = 0.95,
    as_json: AsJson = False,
) -> None:
    """Fit laws of the best learning rate and batch.

    They are power laws in N and D, given as rules that experiments can name. Those of a sweep are
    written to its hparam_laws.json. Nothing is written for a table.
    """
    from sweep.fit import Selection
    from sweep.study.hparam_laws import fit_sweep_hparams, fit_table_hparams, write_hparam_laws
    from sweep.study.laws import not_found

    for option, value in (("--window", window), ("--confidence", confidence)):
        if not 0 < value < 1:
            raise InputError(f"{option} {value:g} is invalid: give a number between 0 and 1")
    closing = []
    if source.is_dir():
        for option, given in (("--column", column), ("--lr", lr), ("--batch", batch), ("--where", where)):
            if given:
                raise InputError(f"{option} has no effect on a sweep: it is about a table")
        found = fit_sweep_hparams(source, window=window, confidence=confidence)
        closing.append(f"written: {write_hparam_laws(source, found)}")
    else:
        if not source.exists():
            raise not_found(source)
        found = fit_table_hparams(
            source,
            columns=columns_of(column or ()),
            lr=lr,
            batch=batch,
            selection=Selection(where=where),
            window=window,
            confidence=confidence,
        )
    settings = " ".join(f"\"{key}='{rule}'\"" for key, rule in found.rules.items())
    following = f"sweep plan experiment=NAME {settings}"
    if as_json:
        print_json(found.to_json() | {"next": [following] if settings else []})
        return
    from sweep.report.text.hparam_laws import hparam_laws_text

    closing += [f"next: {following}"] if settings else []
    print_text(hparam_laws_text(found, closing))
