"""The verbs below `sweep data`."""

from __future__ import annotations

import typer

from sweep.cli.arguments import ConfigDir, Overrides, arms_of, first_arm_of
from sweep.report.text.terminal import print_json, progress, say

data_app = typer.Typer(help="Prepare or inspect the data of an experiment.", no_args_is_help=True)


@data_app.command("prepare")
def data_prepare(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Tokenise the corpus once; all runs share it."""
    from sweep.study import run as study

    for arm in arms_of(overrides, config_dir):
        with progress() as (on_data, _):
            prepared = study.prepare_data(arm, on_data)
        say(f"prepared in {prepared.directory}")


@data_app.command("inspect")
def data_inspect(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print what the corpus and tokenizer are, as JSON; sizes once it is prepared."""
    from dataclasses import asdict

    from sweep.study import run as study

    print_json(asdict(study.dataset(first_arm_of(overrides, config_dir))))
