"""The verbs below `sweep data`, and the verb `import`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.arguments import (
    Columns,
    ConfigDir,
    Overrides,
    arms_of,
    columns_of,
    first_arm_of,
    given_path,
    require_experiment,
)
from sweep.report.text.terminal import print_json, print_text, progress, require_output, say
from sweep.shell import path_argument

data_app = typer.Typer(help="Prepare or inspect the data of an experiment.", no_args_is_help=True)


@data_app.command("prepare")
def data_prepare(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Tokenise the corpus once, for all runs of the experiment."""
    from sweep.plan.grid import heldout_warnings
    from sweep.study.plan import dataset, prepare_data

    require_experiment("data prepare", overrides, config_dir)
    for arm in arms_of(overrides, config_dir):
        with progress() as (on_data, _):
            prepared = prepare_data(arm, on_data)
        found = dataset(arm)
        if found.n_copies or found.n_blank:
            say(f"dropped {found.n_copies} copies of documents and {found.n_blank} rows without text")
        say(f"prepared in {prepared.directory}")
        for warning in heldout_warnings(prepared.manifest.heldout.n_documents):
            say(f"warning: {warning}")


@data_app.command("inspect")
def data_inspect(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the corpus and the tokenizer as JSON: documents and, once the data is prepared, tokens.

    For prepared data it also counts the n-grams of held-out text that occur in the training text.
    """
    from dataclasses import asdict

    from sweep.study.plan import dataset, overlap_of

    require_output()
    require_experiment("data inspect", overrides, config_dir)
    experiment = first_arm_of(overrides, config_dir)
    found = dataset(experiment)
    document = asdict(found)
    settings = shlex.join(overrides or ())
    document["next"] = [f"sweep {'data prepare' if found.n_train_tokens is None else 'plan'} {settings}"]
    if found.n_train_tokens is not None:
        overlaps = overlap_of(experiment, found)
        document["overlap"] = {name: {**asdict(one), "share": one.share} for name, one in overlaps.items()}
    print_json(document)


Table = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE", help="A .csv or .parquet file with one finished run a row.", parser=given_path
    ),
]
Into = Annotated[
    Path,
    typer.Option(
        "--into", metavar="DIR", help="Directory of a sweep, or a new directory.", parser=given_path
    ),
]
Arm = Annotated[str | None, typer.Option("--arm", metavar="NAME", help="Arm of the sweep.")]
SameEvaluation = Annotated[
    bool,
    typer.Option(
        "--same-evaluation",
        help="The losses are on the sweep's own held-out text, tokenizer and windows, though the table "
        "has no columns that say so.",
    ),
]


def import_runs(
    table: Table, into: Into, column: Columns = None, arm: Arm = None, same_evaluation: SameEvaluation = False
) -> None:
    """Add finished runs of another trainer to a sweep.

    They are fitted together with its own. The table needs n_params, n_tokens, flops and loss, under these
    names or those given with --column. Every point keeps its table and row as provenance.
    """
    from sweep.study.imports import import_table

    done = import_table(
        table, into, columns=columns_of(column or ()), arm=arm, same_evaluation=same_evaluation
    )
    if done.left_out:
        name = done.left_out[0].removeprefix("loss_").removeprefix("bits_per_byte_")
        say(
            f"not imported: {', '.join(done.left_out)}, scores on other text than the sweep's held-out text; "
            f"sweep fit {path_argument(table)} --loss {name} fits those of the table"
        )
    known = f", {done.n_known} were there" if done.n_known else ""
    print_text(f"{done.n_new} points imported{known}: {done.tables[0]}")
