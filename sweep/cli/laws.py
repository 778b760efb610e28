"""The verbs `fit`, `report` and `laws`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.arguments import (
    AsJson,
    Columns,
    ConfigDir,
    Overrides,
    Verbose,
    Where,
    check_fit_only,
    columns_of,
    directory_of,
    first_arm_of,
    fit_settings,
    names_experiment,
    only_sweep,
    refuse_old_grammar,
    split_path,
    stored_experiment,
)
from sweep.cli.completion import complete_directory_or_setting
from sweep.cli.next_steps import after_fit, reach
from sweep.errors import InputError
from sweep.report.text.terminal import print_json, print_text, say
from sweep.shell import path_argument

if TYPE_CHECKING:  # scipy and pandas are slow to import, and --help does not need them
    from sweep.config import FitConfig
    from sweep.fit import Fit

FitSource = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR|TABLE",
        help="Directory of a sweep, or a table with one run a row (.csv, .tsv, .parquet, .jsonl); by default "
        "the only sweep in results.",
        autocompletion=complete_directory_or_setting,
    ),
]
FitSettings = Annotated[
    list[str] | None,
    typer.Argument(metavar="fit.KEY=VALUE", help="Settings of the fit, such as fit.n_bootstrap=500."),
]
BestOfCell = Annotated[
    bool, typer.Option("--best-of-cell", help="Fit only the lowest loss of each N and D in the table.")
]
DropIncomplete = Annotated[
    bool, typer.Option("--drop-incomplete", help="Leave out rows of the table without N, D, C or loss.")
]
Reconcile = Annotated[
    bool, typer.Option("--reconcile", help="Fit under every counting convention that the points allow.")
]
ReportSource = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR|TABLE",
        help="Directory of a sweep, or a table with one run a row; by default the directory of the "
        "experiment.",
    ),
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="png|svg|pdf", help="Format of the figures. Can be repeated."),
]
Width = Annotated[
    str,
    typer.Option(
        "--width", metavar="screen|column|two-column", help="Width of the figures: of a screen or a paper."
    ),
]
PlanHash = Annotated[
    str | None,
    typer.Option(
        "--plan", metavar="HASH", help="Fit the runs of this plan of the sweep; by default of the latest."
    ),
]
LossName = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="NAME",
        help="Fit the losses on the evaluation set NAME, the column loss_NAME, instead of the held-out ones.",
    ),
]


def fit(
    source: FitSource = None,
    settings: FitSettings = None,
    column: Columns = None,
    where: Where = None,
    best_of_cell: BestOfCell = False,
    drop_incomplete: DropIncomplete = False,
    plan: PlanHash = None,
    loss: LossName = None,
    reconcile: Reconcile = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Fit scaling laws to a sweep or to a table of runs.

    A sweep's laws are written to its fit.json, with --loss to losses/NAME/fit.json. Nothing is written for a
    table.
    """
    from sweep.fit import OptimaLaw, Selection
    from sweep.study.laws import fit_any_table

    path, overrides = split_path(source, settings)
    refuse_old_grammar(overrides)
    if path is None or not _names_table(path):
        _refuse_table_options(column, where, best_of_cell, drop_incomplete)
        directory, config = _sweep_to_fit(path, overrides, config_dir)
        _fit_sweep(directory, config, plan, loss, reconcile=reconcile, as_json=as_json, verbose=verbose)
        return
    if plan is not None:
        raise InputError("--plan has no effect on a table: it names a plan of a sweep")
    config = fit_settings(overrides, config_dir)
    selection = Selection(where=where, best_of_cell=best_of_cell, drop_incomplete=drop_incomplete)
    columns = columns_of([*(column or ()), *(() if loss is None else (f"loss=loss_{loss}",))])
    fitted = fit_any_table(
        path, config, columns=columns, selection=selection, reconcile=reconcile, on_note=say
    )
    if isinstance(fitted, OptimaLaw):
        print_json(fitted.to_json()) if as_json else print_text(str(fitted))
        return
    following = [_prediction_from(path, column, where, reach(config))] if fitted.has_answer else []
    show_fits({None: fitted}, config, following=following, as_json=as_json, verbose=verbose)


def _names_table(path: Path) -> bool:
    """Return whether a path is meant as a table: a file, or a name with an ending that does not exist."""
    return not path.is_dir() and (bool(path.suffix) or path.exists())


def _refuse_table_options(
    column: list[str] | None, where: str | None, best_of_cell: bool, drop_incomplete: bool
) -> None:
    """Raise InputError for an option of tables where a sweep is read."""
    given = {
        "--column": column,
        "--where": where,
        "--best-of-cell": best_of_cell,
        "--drop-incomplete": drop_incomplete,
    }
    for option in (name for name, value in given.items() if value):
        raise InputError(f"{option} has no effect on a sweep: it is about the rows and columns of a table")


def _sweep_to_fit(
    path: Path | None, overrides: Sequence[str], config_dir: Path | None
) -> tuple[Path, FitConfig]:
    """Return the directory of the sweep that `fit` is about, and the settings of the fit."""
    from sweep.config.places import sweep_directory

    if path is None and names_experiment(overrides):
        experiment = first_arm_of(overrides, config_dir)
        return sweep_directory(experiment), experiment.fit
    directory = path or only_sweep()
    check_fit_only(overrides)
    if (directory / "plans").is_dir():
        return directory, stored_experiment(directory, overrides, config_dir).fit
    return directory, fit_settings(overrides, config_dir)  # imported points alone


def _fit_sweep(
    directory: Path,
    config: FitConfig,
    plan: str | None,
    loss: str | None,
    *,
    reconcile: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Fit a sweep, write its laws and, for the held-out loss, its page, and print both."""
    from sweep.study.departures import departure_warnings
    from sweep.study.laws import fit_arms, write_fits
    from sweep.study.plan import held_out_warnings
    from sweep.study.report import write_page

    for warning in (*held_out_warnings(directory), *departure_warnings(directory)):
        say(f"warning: {warning}")
    fits = fit_arms(directory, config, reconcile=reconcile, plan=plan, loss=loss)
    closing: list[str] = []
    try:
        write_fits(directory, fits, loss=loss)
        closing = [] if loss is not None else [f"report: {write_page(directory)}"]
    finally:  # the laws are printed even where the sweep is read-only
        show_fits(
            fits,
            config,
            sweep_dir=directory if loss is None else None,
            closing=closing,
            following=after_fit(directory, fits, config, loss=loss),
            as_json=as_json,
            verbose=verbose,
        )


def show_fits(
    fits: Mapping[str | None, Fit],
    settings: FitConfig,
    *,
    sweep_dir: Path | None = None,
    closing: Sequence[str] = (),
    following: Sequence[str] = (),
    as_json: bool = False,
    verbose: bool = False,
) -> None:
    """Print one fit, or the fits of several arms under their names.

    Finished validations of `sweep_dir` are shown with the fit of their arm. `closing` lines and the commands
    in `following` come last.
    """
    from sweep.store.validations import read_validations

    validations = () if sweep_dir is None else read_validations(sweep_dir)
    if as_json:
        documents = {arm or "": fitted.to_json() for arm, fitted in fits.items()}
        for name, document in documents.items() if sweep_dir is not None else ():
            own = [one for one in validations if one.registration.arm == (name or None)]
            document["validations"] = [one.to_json() for one in own]
        document = documents[""] if list(fits) == [None] else {"arms": documents}
        print_json(document | {"next": list(following)})
        return
    from sweep.report.text.fit import fit_text
    from sweep.report.text.validation import validation_line
    from sweep.study.predictions import summary

    for arm, fitted in fits.items():
        if arm is not None:
            print_text(f"arm {arm}")
        prediction = summary(fitted, settings)
        lines = [validation_line(one) for one in validations if one.registration.arm == arm][-1:]
        if arm == list(fits)[-1]:
            lines += [*closing, *([f"next: {', '.join(following)}"] if following else [])]
        print_text(fit_text(fitted, prediction, closing=lines, verbose=verbose))


def _prediction_from(table: Path, column: Sequence[str] | None, where: str | None, budget: str) -> str:
    """Return the command that predicts from a table at a budget."""
    options = [*(f"--column {shlex.quote(one)}" for one in column or ())]
    options += [] if where is None else [f"--where {shlex.quote(where)}"]
    return " ".join(["sweep predict", path_argument(table), budget, *options])


def report(
    source: ReportSource = None,
    overrides: Overrides = None,
    formats: Formats = None,
    width: Width = "screen",
    column: Columns = None,
    where: Where = None,
    best_of_cell: BestOfCell = False,
    drop_incomplete: DropIncomplete = False,
    config_dir: ConfigDir = None,
) -> None:
    """Write the report of a sweep or a table, and its figures.

    report.html needs no network and no other file. Figures are drawn as PNG and SVG, or in the formats given.
    """
    from sweep.fit import Selection
    from sweep.study import report as study

    files = study.figure_files(formats or (), width)
    path, given = split_path(source, overrides)
    if path is not None and _names_table(path):
        selection = Selection(where=where, best_of_cell=best_of_cell, drop_incomplete=drop_incomplete)
        config, columns = fit_settings(given, config_dir), columns_of(column or ())
        written = study.write_table_report(path, config, columns=columns, selection=selection, files=files)
    else:
        _refuse_table_options(column, where, best_of_cell, drop_incomplete)
        directory = directory_of(source, overrides, config_dir, planned=False)
        written = study.write_report(directory, files=files)
    print_text("\n".join(map(str, written)))


def laws(as_json: AsJson = False) -> None:
    """List the published laws that predict takes by name."""
    from sweep.report.numbers import format4
    from sweep.study.laws import law_table

    rows = law_table()
    if as_json:
        print_json({"laws": rows, "next": [f"sweep predict {rows[0]['name']} 1e21"]})
        return
    for row in rows:
        low, high = row["flops_range"]
        print_text(f"{row['name']:<27}a {format4(row['a']):<8}b {format4(row['b']):<8}{row['source']}")
        print_text(f"{'':<27}{format4(low)} to {format4(high)} FLOPs; {row['convention']}")
