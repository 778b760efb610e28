"""The verb `init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sweep.cli.arguments import AsJson, budget_of, given_path
from sweep.errors import InputError
from sweep.report.text.terminal import print_json, print_text, say
from sweep.shell import path_argument

Target = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="Directory for the experiment and its results.", parser=given_path),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Of the experiment; by default that of DIR, or mine."),
]
CorpusOption = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        metavar="TEXT",
        help="A file, directory or glob of text or tables, or OWNER/NAME@COMMIT on the Hugging Face hub; by "
        "default the sources of Python's standard library.",
    ),
]
TokenizerOption = Annotated[
    str, typer.Option("--tokenizer", metavar="KIND", help="byte, bpe, or the path of a tokenizer.json.")
]
FlopsBudget = Annotated[
    str | None,
    typer.Option(
        "--flops-budget",
        metavar="FLOPS",
        help="Largest budget of one run; by default about a quarter of an hour for all runs on this machine.",
    ),
]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Device of the runs.")]
ModelOption = Annotated[
    Literal["tiny", "gpt", "gpt2", "llama"], typer.Option("--model", help="Family of the decoders.")
]


def init(
    context: typer.Context,
    directory: Target = Path(),
    name: Name = None,
    corpus: CorpusOption = None,
    tokenizer: TokenizerOption = "bpe",
    flops_budget: FlopsBudget = None,
    device: DeviceOption = "auto",
    model: ModelOption = "tiny",
    as_json: AsJson = False,
) -> None:
    """Write a commented experiment for your own text.

    It is sized to this machine, whose speed is measured if it is not known, and can be planned at once.
    """
    from sweep.report.numbers import duration, format4
    from sweep.study.init import InitOptions
    from sweep.study.init import init as write_experiment

    if context.args:
        raise InputError(
            f"{context.args[0]} is one argument too many: give one directory, and put a glob in quotes, as "
            f"--corpus 'texts/*.txt'"
        )
    chosen = name or directory.resolve().name if directory != Path() or name else "mine"
    options = InitOptions(
        directory=directory,
        name=chosen,
        corpus=corpus,
        tokenizer=tokenizer,
        flops_budget=None if flops_budget is None else budget_of(flops_budget),
        device=device,
        model=model,
    )
    started = write_experiment(options, say)
    largest = max(started.plan.experiment.budgets)
    commands = [
        *([f"cd {path_argument(directory)}"] if directory.resolve() != Path.cwd() else []),
        f"sweep plan experiment={chosen}",
        f"sweep run experiment={chosen}",
        f"sweep predict results/{chosen} {format4(float(f'{10 * largest:.1e}'))}",
    ]
    if as_json:
        document = {"path": str(started.path), "n_runs": len(started.plan.runs), "time_s": started.seconds}
        print_json({**document, "next": commands})
        return
    for warning in started.plan.warnings:
        say(f"warning: {warning}")
    print_text(
        f"wrote {started.path}: {len(started.plan.runs)} runs up to {format4(largest)} FLOPs"
        + (f", about {duration(started.seconds)} here" if started.is_measured else "")
    )
    print_text("\n".join(f"  {command}" for command in commands))
