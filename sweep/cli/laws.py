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
    SweepDirectory,
    directory_of,
    first_arm_of,
    names_experiment,
    split_arguments,
    split_path,
    stored_experiment,
)
from sweep.errors import InputError
from sweep.report.text.terminal import print_json, print_text, say

if TYPE_CHECKING:  # scipy and pandas are slow to import, and --help does not need them
    from sweep.config import ColumnsConfig, ExperimentConfig, FitConfig
    from sweep.fit import Fit

FitSource = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR|TABLE",
        help="Directory of a sweep, or a .csv or .parquet file with one run a row; by default the directory "
        "of the experiment.",
    ),
]
FitSettings = Annotated[
    list[str] | None,
    typer.Argument(metavar="fit.KEY=VALUE", help="Settings of the fit, such as fit.n_bootstrap=500."),
]
LawSource = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR|FIT.JSON|LAW",
        help="Directory of a fitted sweep, its fit.json, or the name of a published law; by default the "
        "directory of the experiment.",
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
        "--column", metavar="FIELD=NAME", help="Name of a field's column in the table. Can be repeated."
    ),
]
Reconcile = Annotated[
    bool, typer.Option("--reconcile", help="Fit under every counting convention that the points allow.")
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
    reconcile: Reconcile = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Fit scaling laws to a sweep or to a table of runs.

    A sweep's laws are written to its fit.json. Nothing is written for a table.
    """
    from sweep.config.places import sweep_directory
    from sweep.study.laws import fit_arms, fit_table, write_fits
    from sweep.study.plan import held_out_warnings

    path, overrides = split_path(source, settings)
    _refuse_old_grammar(overrides)
    if path is not None and not path.is_dir() and (path.suffix or path.is_file()):
        config = _fit_settings(overrides, config_dir)
        table = fit_table(path, config, columns=_columns(column or ()), reconcile=reconcile)
        show_fits({None: table}, as_json)
        return
    if column:
        raise InputError("--column has no effect on a sweep: it names the columns of a .csv or .parquet file")
    if path is None:
        experiment = first_arm_of(overrides, config_dir)
    else:
        _check_fit_only(overrides)
        experiment = stored_experiment(path, overrides, config_dir)
    directory = path or sweep_directory(experiment)
    for warning in held_out_warnings(directory):
        say(f"warning: {warning}")
    fits = fit_arms(directory, experiment.fit, reconcile=reconcile)
    try:
        write_fits(directory, fits)
    finally:  # the laws are printed even where the sweep is read-only
        show_fits(fits, as_json)


def _fit_settings(overrides: Sequence[str], config_dir: Path | None) -> FitConfig:
    """Return the settings of a fit outside a sweep. Raises InputError for keys that are not of the fit."""
    _check_fit_only(overrides)
    return first_arm_of(overrides, config_dir).fit


def _check_fit_only(overrides: Sequence[str]) -> None:
    for override in overrides:
        if not override.lstrip("~+").startswith(("fit.", "fit=")):
            raise InputError(
                f"{override} has no effect here: give settings of the fit, such as fit.n_bootstrap=500"
            )


def _columns(given: Sequence[str]) -> ColumnsConfig:
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


def show_fits(fits: Mapping[str | None, Fit], as_json: bool) -> None:
    """Print one fit, or the fits of several arms under their names."""
    if as_json:
        documents = {arm or "": fitted.to_json() for arm, fitted in fits.items()}
        print_json({"arms": documents} if None not in fits else documents[""])
        return
    from sweep.report.text.fit import fit_text

    for arm, fitted in fits.items():
        if arm is not None:
            print_text(f"arm {arm}")
        print_text(fit_text(fitted))


def predict(
    source: LawSource = None,
    flops: Budgets = None,
    inference_tokens: InferenceTokens = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Predict the compute-optimal model at one or more budgets.

    Parameters, tokens and loss come with intervals and, where the law belongs to a sweep, with the concrete
    run to train.
    """
    from sweep.config.places import sweep_directory
    from sweep.fit import read_fit
    from sweep.study import laws

    words, overrides = split_arguments(source, flops)
    _refuse_old_grammar(overrides)
    source, budgets = _source_and_budgets(words)
    if inference_tokens is not None and not 0 < inference_tokens < math.inf:
        raise InputError(f"--inference-tokens {inference_tokens:g} is invalid: give a number above zero")
    family = _family(source, overrides, config_dir)
    if source is None:
        assert family is not None
        fitted = read_fit(laws.fit_file(sweep_directory(family)))
    else:
        fitted = laws.read_law(source)
    settings = family.fit if family is not None else _fit_settings(overrides, config_dir)
    predictions = laws.predict(
        fitted,
        budgets,
        family=family,
        inference_tokens=inference_tokens,
        max_interval_factor=settings.max_interval_factor,
    )
    if as_json:
        documents = [prediction.to_json() for prediction in predictions]
        print_json(documents if len(documents) > 1 else documents[0])
    else:
        from sweep.report.text.prediction import prediction_text

        print_text(prediction_text(predictions))


def _source_and_budgets(words: Sequence[str]) -> tuple[str | None, list[float]]:
    """Return the law's source, None when only numbers are given, and the budgets in FLOPs."""
    has_source = bool(words) and (_number(words[0]) is None or Path(words[0]).exists())
    source, rest = (words[0], words[1:]) if has_source else (None, words)
    budgets = []
    for word in rest:
        number = _number(word)
        if number is None or not 0 < number <= 1e30:
            raise InputError(f"{word} is not a budget: give training FLOPs between 0 and 1e30, such as 1e21")
        budgets.append(number)
    if not budgets:
        raise InputError(
            f"no budget is given: add training FLOPs, as in sweep predict {shlex.quote(source or 'DIR')} 1e21"
        )
    return source, budgets


def _number(word: str) -> float | None:
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
    directory: SweepDirectory = None, overrides: Overrides = None, config_dir: ConfigDir = None
) -> None:
    """Draw the figures of a fitted sweep and print their paths."""
    from sweep.study import laws

    print_text("\n".join(map(str, laws.report(directory_of(directory, overrides, config_dir)))))


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
