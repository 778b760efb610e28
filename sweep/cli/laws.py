"""The verbs `fit`, `predict` and `report`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.arguments import (
    AsJson,
    ConfigDir,
    Overrides,
    directory_of,
    first_arm_of,
    given_path,
    names_experiment,
    only_sweep,
    split_arguments,
    split_path,
    stored_experiment,
)
from sweep.cli.completion import complete_directory_or_setting
from sweep.errors import InputError
from sweep.report.text.terminal import print_json, print_text, say

if TYPE_CHECKING:  # scipy and pandas are slow to import, and --help does not need them
    from sweep.config import ColumnsConfig, ExperimentConfig, FitConfig
    from sweep.fit import Fit
    from sweep.fit.predict import RunPrediction

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
LawSource = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR|FIT.JSON|TABLE|LAW",
        help="Directory of a fitted sweep, its fit.json, a table with one run a row, which is fitted first, "
        "or the name of a published law; by default the only sweep in results.",
        autocompletion=complete_directory_or_setting,
    ),
]
Budgets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FLOPS",
        help="Budgets in training FLOPs, such as 1e21. After them, experiment=NAME chooses the model family "
        "of the concrete run for a law from elsewhere.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=NAME",
        help="Column of a field in the table, such as n_params='Model Size', 'n_params=size*1e6' or "
        "'loss=ln(ppl)'. Can be repeated.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPRESSION",
        help="Fit only these rows of the table, such as 'experiment == \"x\" and n_params > 1e8'.",
    ),
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
VALIDATED = 4.0
"""Times the largest fitted budget: the validation that is proposed after a fit."""

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show everything that the fit found.")]
RunParams = Annotated[
    float | None,
    typer.Option("--n-params", metavar="N", help="With --n-tokens: predict the loss of this run instead."),
]
RunTokens = Annotated[
    float | None, typer.Option("--n-tokens", metavar="D", help="Training tokens of the run of --n-params.")
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
ArmOfLaw = Annotated[
    str | None, typer.Option("--arm", metavar="NAME", help="Arm of the sweep to predict from.")
]
InferenceTokens = Annotated[
    float | None,
    typer.Option(
        "--inference-tokens",
        metavar="TOKENS",
        help="Tokens served in the model's life: also minimise lifetime compute.",
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
    from sweep.config.places import sweep_directory
    from sweep.fit import OptimaLaw, Selection
    from sweep.study.departures import departure_warnings
    from sweep.study.laws import fit_any_table, fit_arms, write_fits
    from sweep.study.plan import held_out_warnings
    from sweep.study.report import write_page

    path, overrides = split_path(source, settings)
    _refuse_old_grammar(overrides)
    if path is not None and not path.is_dir() and (path.suffix or path.is_file()):
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
        else:
            following = [_prediction_from(path, column, where)] if fitted.has_answer else []
            show_fits({None: fitted}, config, following=following, as_json=as_json, verbose=verbose)
        return
    for option, given in (
        ("--column", column),
        ("--where", where),
        ("--best-of-cell", best_of_cell),
        ("--drop-incomplete", drop_incomplete),
    ):
        if given:
            raise InputError(
                f"{option} has no effect on a sweep: it is about the rows and columns of a table"
            )
    if path is None and not names_experiment(overrides):
        path = only_sweep()
    if path is None:
        experiment = first_arm_of(overrides, config_dir)
        directory, config = sweep_directory(experiment), experiment.fit
    else:
        check_fit_only(overrides)
        directory = path
        is_planned = (path / "plans").is_dir()  # false for imported points alone
        config = (
            stored_experiment(path, overrides, config_dir).fit
            if is_planned
            else fit_settings(overrides, config_dir)
        )
    for warning in (*held_out_warnings(directory), *departure_warnings(directory)):
        say(f"warning: {warning}")
    fits = fit_arms(directory, config, reconcile=reconcile, plan=plan, loss=loss)
    closing: list[str] = []
    following = next_steps(directory, fits, loss=loss)
    try:
        write_fits(directory, fits, loss=loss)
        closing = [] if loss is not None else [f"report: {write_page(directory)}"]
    finally:  # the laws are printed even where the sweep is read-only
        show_fits(
            fits,
            config,
            sweep_dir=directory if loss is None else None,
            closing=closing,
            following=following,
            as_json=as_json,
            verbose=verbose,
        )


def fit_settings(overrides: Sequence[str], config_dir: Path | None) -> FitConfig:
    """Return the settings of a fit outside a sweep. Raises InputError for keys that are not of the fit."""
    from sweep.config import FitConfig
    from sweep.config.compose import packaged_configs, search_path

    check_fit_only(overrides)
    if not overrides and search_path(config_dir) == [packaged_configs().resolve()]:
        return FitConfig()  # that of the default experiment: Hydra is slow to import
    return first_arm_of(overrides, config_dir).fit


def check_fit_only(overrides: Sequence[str]) -> None:
    """Raise InputError for an override of a key outside of the fit."""
    for override in overrides:
        if not override.lstrip("~+").startswith(("fit.", "fit=")):
            raise InputError(
                f"{override} has no effect here: give settings of the fit, such as fit.n_bootstrap=500"
            )


def columns_of(given: Sequence[str]) -> ColumnsConfig:
    """Return the columns of a table, from FIELD=NAME. Raises InputError for an unknown field."""
    from dataclasses import asdict

    from sweep.fit import DEFAULT_COLUMNS

    names: dict[str, str] = {}
    for column in given:
        field, equals, name = column.partition("=")
        if field not in asdict(DEFAULT_COLUMNS) or not equals or not name:
            choices = ", ".join(asdict(DEFAULT_COLUMNS))
            raise InputError(f"--column {column} is not FIELD=NAME with one of the fields {choices}")
        names[field] = name
    return replace(DEFAULT_COLUMNS, **names)


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

    `closing` lines and the commands in `following` come last.

    Finished validations of `sweep_dir` are shown with the fit of their arm.
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


def _prediction_from(table: Path, column: Sequence[str] | None, where: str | None) -> str:
    """Return the command that predicts from a table."""
    options = [*(f"--column {shlex.quote(one)}" for one in column or ())]
    options += [] if where is None else [f"--where {shlex.quote(where)}"]
    return " ".join(["sweep predict", shlex.quote(str(table)), "FLOPS", *options])


def next_steps(directory: Path, fits: Mapping[str | None, Fit], *, loss: str | None = None) -> list[str]:
    """Return the commands that follow a fit, of the losses on the evaluation set `loss` if given."""
    from sweep.report.numbers import format4

    place = shlex.quote(str(directory))
    arm, fitted = next(iter(fits.items()))
    if fitted.flops_range is None:
        return [f"sweep status {place}"]
    if loss is not None:
        from sweep.study.laws import arm_directory, set_directory

        file = set_directory(arm_directory(directory, arm), loss) / "fit.json"
        return [f"sweep predict {shlex.quote(str(file))} FLOPS"]
    chosen = "" if arm is None else f" --arm {shlex.quote(arm)}"
    budget = format4(float(f"{VALIDATED * fitted.flops_range[1]:.1e}"))
    validation = [f"sweep validate {place} {budget}{chosen}"] if (directory / "plans").is_dir() else []
    comparison = [f"sweep compare {place}"] if len(fits) == 2 else []
    return [*comparison, f"sweep predict {place} FLOPS{chosen}", *validation]


def predict(
    source: LawSource = None,
    flops: Budgets = None,
    inference_tokens: InferenceTokens = None,
    n_params: RunParams = None,
    n_tokens: RunTokens = None,
    arm: ArmOfLaw = None,
    column: Columns = None,
    where: Where = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Predict the compute-optimal model at larger budgets.

    Or the loss of a given run, with --n-params and --n-tokens. Parameters, tokens and loss come with
    intervals and, where the law belongs to a sweep, with the concrete run to train.
    """
    from sweep.config.places import sweep_directory
    from sweep.study import laws
    from sweep.study import predictions as study

    words, overrides = split_arguments(source, flops)
    _refuse_old_grammar(overrides)
    of_run = n_params is not None or n_tokens is not None
    source, budgets = _source_and_budgets(words, needed=not of_run)
    if source is None and not names_experiment(overrides):
        source = str(only_sweep())
    elif source is not None and source.startswith("~"):
        source = str(given_path(source))
    if inference_tokens is not None and not 0 < inference_tokens < math.inf:
        raise InputError(f"--inference-tokens {inference_tokens:g} is invalid: give a number above zero")
    source = _of_arm(source, arm)
    family = _family(source, overrides, config_dir)
    settings = family.fit if family is not None else fit_settings(overrides, config_dir)
    of_sweep = None if source is not None or family is None else sweep_directory(family)
    fitted = _law(source or str(of_sweep), settings, column, where)
    if of_run:
        if n_params is None or n_tokens is None or budgets:
            raise InputError("--n-params and --n-tokens belong together, and replace the budgets: give both")
        _show_run(study.run_loss(fitted, n_params, n_tokens, settings), as_json)
        return
    sweep_dir = of_sweep or laws.sweep_of_law(source or ".")
    if sweep_dir is not None and (n_newer := laws.newer_points(sweep_dir, source)):
        say(f"warning: {n_newer} runs finished after this fit: fit again with sweep fit {sweep_dir}")
    predictions = study.predict(
        fitted,
        budgets,
        family=family,
        trained=() if sweep_dir is None or family is None else laws.trained_points(sweep_dir),
        inference_tokens=inference_tokens,
        settings=settings,
    )
    from sweep.report.numbers import format4

    following, first = None, predictions[0]
    if sweep_dir is not None and first.shape and (first.beyond_data or 0.0) > laws.MIN_VALIDATED:
        chosen = "" if arm is None else f" --arm {shlex.quote(arm)}"
        following = f"sweep validate {shlex.quote(str(sweep_dir))} {format4(budgets[0])}{chosen}"
    if as_json:
        commands = {"next": [] if following is None else [following]}
        documents = [prediction.to_json() | commands for prediction in predictions]
        print_json(documents if len(documents) > 1 else documents[0])
        return
    from sweep.report.text.prediction import prediction_text

    if following is not None:
        following = f"next: {following} trains this run and its neighbours"
    print_text(prediction_text(predictions, next_step=following, verbose=verbose))


def _law(source: str, settings: FitConfig, column: list[str] | None, where: str | None) -> Fit:
    """Return the fit of a sweep, a fit.json, a published law or a table. Raises InputError as they do."""
    from sweep.fit import Selection
    from sweep.study import laws

    if laws.is_table(source):
        columns, selection = columns_of(column or ()), Selection(where=where)
        return laws.fit_table(source, settings, columns=columns, selection=selection, on_note=say)
    if column or where:
        raise InputError("--column and --where are about the columns and rows of a table: give one")
    return laws.read_law(source)


def _of_arm(source: str | None, arm: str | None) -> str | None:
    """Return the directory of an arm's fit, and `source` for a law without arms.

    Raises InputError where the sweep has arms and none of them is chosen, and for an unknown one.
    """
    from sweep.study import laws

    if source is None or not (Path(source) / "plans").is_dir():
        if arm is not None:
            raise InputError(f"--arm {arm} belongs to the directory of a sweep: give one before the budgets")
        return source
    arms = laws.arm_names(Path(source))
    if arm is None and not arms:
        return source
    if arm not in arms:
        names = f"from {', '.join(arms)}" if arms else "the sweep has no arms"
        wanted = "no arm is given" if arm is None else f"unknown arm {arm}"
        raise InputError(f"{wanted}: choose one with --arm NAME, {names}" if arms else f"{wanted}: {names}")
    return str(laws.arm_directory(Path(source), arm))


def _show_run(prediction: RunPrediction, as_json: bool) -> None:
    from sweep.report.text.prediction import run_prediction_text

    if as_json:
        print_json(prediction.to_json() | {"next": []})
    else:
        print_text(run_prediction_text(prediction))


def _source_and_budgets(words: Sequence[str], *, needed: bool) -> tuple[str | None, list[float]]:
    """Return the law's source, None when only numbers are given, and the budgets in FLOPs.

    Raises InputError for a budget that is no number, and without any where they are `needed`.
    """
    has_source = bool(words) and (number_of(words[0]) is None or Path(words[0]).exists())
    source, rest = (words[0], words[1:]) if has_source else (None, words)
    budgets = [budget_of(word) for word in rest]
    if needed and not budgets:
        raise InputError(
            f"no budget is given: add training FLOPs, as in sweep predict {shlex.quote(source or 'DIR')} 1e21"
        )
    return source, budgets


def budget_of(word: str) -> float:
    """Return a budget in FLOPs. Raises InputError for anything else than a number in range."""
    number = number_of(word)
    if number is None or not 0 < number <= 1e30:
        raise InputError(f"{word} is not a budget: give training FLOPs between 0 and 1e30, such as 1e21")
    return number


def number_of(word: str) -> float | None:
    """Return the number that a word is; None for another word."""
    try:
        return float(word)
    except ValueError:
        return None


def _family(source: str | None, overrides: Sequence[str], config_dir: Path | None) -> ExperimentConfig | None:
    """Return the experiment that a law is about, None for a law from elsewhere without experiment=NAME."""
    from sweep.study.laws import sweep_of_law

    if source is None:
        return first_arm_of(overrides, config_dir)
    named = names_experiment(overrides)
    sweep_dir = sweep_of_law(source) if Path(source).is_dir() or not named else None
    if sweep_dir is not None:
        return stored_experiment(sweep_dir, overrides, config_dir)
    return first_arm_of(overrides, config_dir) if named else None


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
    if path is not None and not path.is_dir() and (path.suffix or path.is_file()):
        selection = Selection(where=where, best_of_cell=best_of_cell, drop_incomplete=drop_incomplete)
        config, columns = fit_settings(given, config_dir), columns_of(column or ())
        written = study.write_table_report(path, config, columns=columns, selection=selection, files=files)
    else:
        if column or where or best_of_cell or drop_incomplete:
            raise InputError("--column, --where, --best-of-cell and --drop-incomplete are about a table")
        directory = directory_of(source, overrides, config_dir)
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


def _refuse_old_grammar(overrides: Sequence[str]) -> None:
    """Raise InputError for arguments given as KEY=VALUE, as earlier versions took them, with the new call."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        key, _, field = key.partition(".")
        value = value.strip("'\"")
        calls = {
            "points": f"sweep fit {shlex.quote(value)}",
            "columns": f"--column {field}={shlex.quote(value)}",
            "reconcile": "--reconcile",
            "law": f"sweep predict {shlex.quote(value)} FLOPS",
            "flops": f"sweep predict DIR {' '.join(value.strip('[]').split(','))}",
            "inference_tokens": f"--inference-tokens {shlex.quote(value)}",
        }
        if key in calls:
            raise InputError(f"{override} is no longer a setting: write {calls[key]}")
