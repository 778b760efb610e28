"""The verbs below `sweep data`."""

from __future__ import annotations

import typer

from sweep.cli.arguments import ConfigDir, Overrides, arms_of, first_arm_of
from sweep.report.text.terminal import print_json, progress, say

data_app = typer.Typer(help="Prepare or inspect the data of an experiment.", no_args_is_help=True)


@data_app.command("prepare")
def data_prepare(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Tokenise the corpus once, for all runs of the experiment."""
    from sweep.study.plan import dataset, prepare_data

    for arm in arms_of(overrides, config_dir):
        with progress() as (on_data, _):
            prepared = prepare_data(arm, on_data)
        found = dataset(arm)
        if found.n_copies or found.n_blank:
            say(
                f"dropped {found.n_copies} copies of documents and {found.n_blank} rows or parts without text"
            )
        say(f"prepared in {prepared.directory}")


@data_app.command("inspect")
def data_inspect(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the corpus and the tokenizer as JSON, with their size once the data is prepared."""
    from dataclasses import asdict

    from sweep.study.plan import dataset

    print_json(asdict(dataset(first_arm_of(overrides, config_dir))))
