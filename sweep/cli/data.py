"""The verbs below `sweep data`."""

from __future__ import annotations

import typer

from sweep.cli.arguments import ConfigDir, Overrides, arms_of, first_arm_of
from sweep.report.text.terminal import print_json, progress, say

data_app = typer.Typer(help="Prepare or inspect the data of an experiment.", no_args_is_help=True)


@data_app.command("prepare")
def data_prepare(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Tokenise the corpus once, for all runs of the experiment."""
    from sweep.plan.grid import heldout_warnings
    from sweep.study.plan import prepare_data

    for arm in arms_of(overrides, config_dir):
        with progress() as (on_data, _):
            prepared = prepare_data(arm, on_data)
        say(f"prepared in {prepared.directory}")
        for warning in heldout_warnings(prepared.manifest.heldout.n_documents):
            say(f"warning: {warning}")


@data_app.command("inspect")
def data_inspect(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the corpus and the tokenizer as JSON: documents and, once the data is prepared, tokens."""
    from dataclasses import asdict

    from sweep.study.plan import dataset

    print_json(asdict(dataset(first_arm_of(overrides, config_dir))))
