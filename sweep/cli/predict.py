"""The verb `predict`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.arguments import (
    AsJson,
    Columns,
    ConfigDir,
    Verbose,
    Where,
    budget_or_multiple,
    columns_of,
    first_arm_of,
    fit_settings,
    given_path,
    is_budget,
    names_experiment,
    only_sweep,
    refuse_old_grammar,
    split_arguments,
    stored_experiment,
)
from sweep.cli.completion import complete_directory_or_setting
from sweep.cli.next_steps import after_prediction, prediction_of
from sweep.errors import InputError
from sweep.report.text.terminal import print_json, print_text, say
from sweep.shell import path_argument

if TYPE_CHECKING:  # scipy and pandas are slow to import, and --help does not need them
    from sweep.config import ExperimentConfig, FitConfig
    from sweep.fit import Fit, Prediction
    from sweep.fit.prediction import RunPrediction

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
        help="Budgets in training FLOPs, such as 1e21, or as multiples of the largest fitted one, such as "
        "10x. After them, experiment=NAME chooses the model family of the concrete run for a law from "
        "elsewhere.",
    ),
]
RunParams = Annotated[
    float | None,
    typer.Option("--n-params", metavar="N", help="With --n-tokens: predict the loss of this run instead."),
]
RunTokens = Annotated[
    float | None, typer.Option("--n-tokens", metavar="D", help="Training tokens of the run of --n-params.")
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
    refuse_old_grammar(overrides)
    of_run = n_params is not None or n_tokens is not None
    source, given = _source_and_budgets(words, needed=not of_run)
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
        if n_params is None or n_tokens is None or given:
            raise InputError("--n-params and --n-tokens belong together, and replace the budgets: give both")
        _show_run(study.run_loss(fitted, n_params, n_tokens, settings), as_json)
        return
    budgets = [budget_or_multiple(word, lambda: _largest_budget(fitted)) for word in given]
    sweep_dir = of_sweep or laws.sweep_of_law(source or ".")
    if sweep_dir is not None and (n_newer := laws.newer_points(sweep_dir, source)):
        command = f"sweep fit {path_argument(sweep_dir)}"
        say(f"warning: {n_newer} runs finished after this fit: fit again with {command}")
    predictions = study.predict(
        fitted,
        budgets,
        family=family,
        trained=() if sweep_dir is None or family is None else laws.trained_points(sweep_dir),
        inference_tokens=inference_tokens,
        settings=settings,
    )
    nearer = prediction_of(source or str(of_sweep), f"{settings.max_reach:g}x", column, where)
    following = after_prediction(nearer, sweep_dir, fitted, predictions[0], arm, settings)
    _show(predictions, following, as_json=as_json, verbose=verbose)


def _show(
    predictions: Sequence[Prediction], following: Sequence[str], *, as_json: bool, verbose: bool
) -> None:
    """Print predictions and the commands that follow."""
    from sweep.report.text.prediction import prediction_text

    if as_json:
        documents = [prediction.to_json() | {"next": list(following)} for prediction in predictions]
        print_json(documents if len(documents) > 1 else documents[0])
        return
    next_step = f"next: {', '.join(following)}" if following else None
    print_text(prediction_text(predictions, next_step=next_step, verbose=verbose))


def _law(source: str, settings: FitConfig, column: list[str] | None, where: str | None) -> Fit:
    """Return the fit of a sweep, a fit.json, a published law or a table. Raises InputError as they do."""
    from sweep.fit import Selection
    from sweep.study import laws, tables

    if tables.is_table(source):
        columns, selection = columns_of(column or ()), Selection(where=where)
        return tables.fit_table(source, settings, columns=columns, selection=selection, on_note=say)
    if column or where:
        raise InputError("--column and --where are about the columns and rows of a table: give one")
    return laws.read_law(source)


def _of_arm(source: str | None, arm: str | None) -> str | None:
    """Return the directory of an arm's fit, and `source` for a law without arms.

    Raises InputError where the sweep has arms and none of them is chosen, and for an unknown one.
    """
    from sweep.study import laws

    if source is None or not any((Path(source) / part).is_dir() for part in ("plans", "runs")):
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


def _source_and_budgets(words: Sequence[str], *, needed: bool) -> tuple[str | None, list[str]]:
    """Return the law's source, None when only budgets are given, and the budgets as words.

    Raises InputError for a budget that is neither a number nor a multiple, and for none where they are
    `needed`.
    """
    has_source = bool(words) and (not is_budget(words[0]) or Path(words[0]).exists())
    source, rest = (words[0], words[1:]) if has_source else (None, words)
    for word in rest:
        budget_or_multiple(word, lambda: 1.0)  # refused before anything is fitted
    if needed and not rest:
        raise InputError(
            f"no budget is given: add training FLOPs, as in sweep predict {path_argument(source or 'DIR')} "
            f"1e21, or a multiple of the largest fitted budget, such as 10x"
        )
    return source, list(rest)


def _largest_budget(fitted: Fit) -> float:
    """Return the largest fitted budget in FLOPs, to three digits if that is not above it.

    Thus fit.max_reach times it is not refused. Raises InputError for a law without a largest budget.
    """
    if fitted.flops_max is None:
        raise InputError(
            "a multiple such as 10x needs a fitted range, and this law has none: give FLOPs, such as 1e21"
        )
    return min(float(f"{fitted.flops_max:.2e}"), fitted.flops_max)


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
