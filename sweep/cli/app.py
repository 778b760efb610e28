"""The application: its verbs, `doctor`, `config`, and the exit codes of errors."""

from __future__ import annotations

import gc
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli import checks, comparisons, design, laws, predict, sweeps, upkeep
from sweep.cli.arguments import AsJson, ConfigDir, Overrides, arms_of, first_arm_of, names_experiment
from sweep.cli.data import data_app, import_runs
from sweep.cli.help import DAILY, MACHINE, STUDIES, GroupedVerbs, examples
from sweep.cli.init import init
from sweep.errors import EXIT_BUG, EXIT_FAILED, EXIT_INTERRUPTED, InputError, user_error
from sweep.machine.environment import open_closed_streams
from sweep.report.text.terminal import (
    discard_if_closed,
    print_document,
    print_json,
    print_text,
    require_output,
    say,
    visible,
)

if TYPE_CHECKING:
    from sweep.config import ExperimentConfig
    from sweep.machine.packing import PackingRow

app = typer.Typer(
    name="sweep",
    cls=GroupedVerbs,
    help="Train sweeps of small decoders, fit scaling laws to them, and predict larger runs. "
    "Results are printed on standard output; progress, warnings and errors on standard error.",
    epilog=examples(
        (
            "sweep plan experiment=smoke           the runs, their time and cost",
            "sweep run experiment=smoke            train them, fit and draw; repeat to resume",
            "sweep predict results/smoke 1e11      N, D and loss at a larger budget",
            "sweep predict besiroglu_2024 1e21     the same from a published law",
        )
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

VERBS_WITH_FILES = frozenset(
    "run worker validate check-hparams report import init export exclude cancel".split()
)
"""Verbs with results in files, which are worth their work where standard output is closed."""

Packing = Annotated[
    bool,
    typer.Option("--packing", help="Measure how many workers should share a device, and store the result."),
]


def _add(
    group: str, verb: Callable[..., None], *lines: str, name: str | None = None, refuses_rest: bool = False
) -> None:
    """Add a verb to a group, with the commands that its help shows.

    `refuses_rest`: the verb itself refuses arguments that are one too many.
    """
    shown = examples([f"sweep {line}" for line in lines])
    settings = {"allow_extra_args": refuses_rest}
    app.command(name, rich_help_panel=group, epilog=shown, context_settings=settings)(verb)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print_text(f"sweep {version('sweep')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options before the verb, and check that what it prints can be written."""
    if context.invoked_subcommand in VERBS_WITH_FILES:
        discard_if_closed()
    elif context.invoked_subcommand != "data":
        require_output()


def doctor(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    packing: Packing = False,
    as_json: AsJson = False,
) -> None:
    """Show what this machine has and lacks for an experiment."""
    from sweep.study.plan import diagnose

    _say_default(overrides)
    if packing:
        _measure_packing(arms_of(overrides, config_dir), overrides, as_json)
        return
    diagnosis = diagnose(first_arm_of(overrides, config_dir), say)
    if as_json:
        remedies = [check.remedy for check in diagnosis.checks if check.state == "missing" and check.remedy]
        print_json(diagnosis.to_json() | {"next": remedies or [_plan_of(overrides)]})
    else:
        print_text(diagnosis.to_text())
    if not diagnosis.ok:
        raise typer.Exit(EXIT_FAILED)


def _plan_of(overrides: Sequence[str] | None) -> str:
    """Return the command that plans the experiment that was examined."""
    from sweep.config.compose import DEFAULT_EXPERIMENT

    chosen = [] if names_experiment(overrides or ()) else [f"experiment={DEFAULT_EXPERIMENT}"]
    return shlex.join(["sweep", "plan", *chosen, *(overrides or ())])


def _say_default(overrides: Sequence[str] | None) -> None:
    """Say that the answer is about the default experiment, where none is chosen."""
    if not names_experiment(overrides or ()):
        from sweep.config.compose import DEFAULT_EXPERIMENT

        say(f"for experiment={DEFAULT_EXPERIMENT}: choose another with experiment=NAME")


def _measure_packing(
    arms: Sequence[ExperimentConfig], overrides: Sequence[str] | None, as_json: bool
) -> None:
    """Measure how many workers should share a device with the sizes of an experiment, and print it."""
    from sweep.machine.workers import measure_and_remember
    from sweep.report.text.plan import packing_line
    from sweep.study.checks import check_extras
    from sweep.study.plan import plan_experiment

    rows: list[PackingRow] = []

    def on_row(row: PackingRow) -> None:
        rows.append(row)
        say(packing_line(row))

    check_extras()
    chosen = measure_and_remember([plan_experiment(arm) for arm in arms], on_row)
    if as_json:
        listed = [asdict(row) for row in rows]
        print_json({"rows": listed, "chosen": asdict(chosen), "next": [_plan_of(overrides)]})
        return
    print_text(
        f"{chosen.n_workers} worker{'s' if chosen.n_workers > 1 else ''} on a device"
        f"{' with MPS' if chosen.mps else ''}, {chosen.speedup:.2f} times as fast as one; stored"
    )


def config(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the resolved config of an experiment as YAML."""
    from omegaconf import OmegaConf

    from sweep.config import to_dict

    _say_default(overrides)
    print_document(OmegaConf.to_yaml(OmegaConf.create(to_dict(first_arm_of(overrides, config_dir)))))


_add(
    DAILY,
    sweeps.plan,
    "plan experiment=smoke",
    "plan experiment=smoke optimizer.lr_multiplier=0.5 name=slow",
    "plan experiment=demo --hours 2 --resolve 0.01",
    "plan experiment=mine --json",
)
_add(
    DAILY,
    sweeps.run,
    "run experiment=smoke",
    "run experiment=smoke --detach",
    "run experiment=smoke arms='{optimizer: [adamw, muon]}'",
)
_add(DAILY, upkeep.status, "status", "status results/smoke --watch")
_add(
    DAILY,
    predict.predict,
    "predict results/smoke 1e11 1e12",
    "predict besiroglu_2024 1e21 --inference-tokens 1e13",
    "predict besiroglu_2024 --n-params 7e9 --n-tokens 2e12",
)
_add(DAILY, laws.report, "report results/smoke")
_add(
    STUDIES,
    laws.fit,
    "fit results/smoke",
    "fit runs.csv",
    "fit runs.csv --column n_params='Model Size' --where 'n_params > 1e8'",
)
_add(STUDIES, laws.laws, "laws", "laws --json")
_add(STUDIES, checks.validate, "validate results/smoke 4x", "validate results/smoke 1e12 --json")
_add(
    STUDIES,
    comparisons.compare,
    "compare results/adamw results/muon",
    "compare results/arms --flops 1e20",
    "compare results/arms:adamw results/arms:muon --figure compare.png",
)
_add(
    STUDIES,
    design.suggest,
    "suggest results/smoke --target 1e12",
    "suggest results/smoke --target 1e12 --flops-budget 1e11 --run",
)
_add(STUDIES, checks.check_hparams, "check-hparams experiment=smoke", name="check-hparams")
_add(STUDIES, comparisons.fit_hparams, "fit-hparams results/rates", name="fit-hparams")
_add(STUDIES, upkeep.exclude, "exclude results/smoke 5e09-d8-L2-s0 --reason 'loss spike at step 40'")
_add(STUDIES, import_runs, "import runs.csv --into results/theirs", name="import")
_add(
    MACHINE,
    init,
    "init",
    "init --corpus 'texts/**/*.txt' --model llama",
    "init mine --corpus a.parquet --tokenizer tokenizer.json --flops-budget 1e13",
    refuses_rest=True,
)
_add(
    MACHINE,
    doctor,
    "doctor experiment=smoke",
    "doctor experiment=smoke --packing",
)
_add(MACHINE, config, "config experiment=smoke")
_add(MACHINE, upkeep.worker, "worker results/smoke")
_add(MACHINE, upkeep.cancel, "cancel results/smoke")
_add(MACHINE, upkeep.export, "export results/mine 2e10-d16-L2-s0 --to model")
app.add_typer(data_app, name="data", rich_help_panel=MACHINE)


def _check_working_directory() -> None:
    """Raise InputError when the working directory was deleted: relative paths lead nowhere."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the working directory does not exist any more: change to another one") from None


def main() -> None:
    """Run the command line; user and system errors become one sentence and their exit code.

    typer reports unknown verbs and options itself, with exit code 2. Any other exception is a bug.
    """
    open_closed_streams()
    try:
        _check_working_directory()
        app()
    except BrokenPipeError:  # the reader of standard output closed it, as head does
        sys.exit(EXIT_FAILED)
    except SystemExit as leaving:
        if leaving.code == EXIT_INTERRUPTED:  # typer's, after Ctrl-C
            say("interrupted: finished files are kept, run the same command to continue")
        raise
    except Exception as error:
        reported = user_error(error)
        if reported is not None:
            say(f"error: {visible(str(reported))}")
            sys.exit(reported.exit_code)
        import traceback

        traceback.print_exception(error)
        say(f"this is a bug in sweep, please report it with the lines above: {type(error).__name__}: {error}")
        sys.exit(EXIT_BUG)
    finally:
        gc.freeze()  # skip the final garbage collection, which takes 0.4 s after a fit
