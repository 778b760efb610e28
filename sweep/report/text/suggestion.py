"""Suggested runs as text: a table of cells, and the interval now and after them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from sweep.report.numbers import format4, plain_table
from sweep.report.suggestion import Outlook, SuggestedRun, Suggestion
from sweep.report.text.answer import interval_text

MAX_CELLS = 12  # rows of the table
PURPOSES = {"bracket": "bracket its minimum", "budget": "new budget", "precision": "less noise"}


def suggestion_text(found: Suggestion, command: str | None) -> RenderableType:
    """Return the runs, the expected answer, and the `command` that trains them."""
    arm = "" if found.arm is None else f" of arm {found.arm}"
    lines: list[RenderableType] = []
    if found.runs:
        n_runs = len(found.runs)
        lines.append(
            Text(
                f"{n_runs} run{'s' * (n_runs > 1)}{arm}, {format4(found.flops)} FLOPs of "
                f"{format4(found.allowance)} allowed:"
            )
        )
        lines.append(_table(found))
    else:
        lines.append(
            Text(
                f"no run{arm} within {format4(found.allowance)} FLOPs narrows the answer: raise "
                f"--flops-budget, or --max-budget, which shortens the extrapolation"
            )
        )
    lines += [Text(line) for line in _closing(found)]
    if command is not None and found.runs:
        lines.append(Text(f"train them: {command}"))
    return Group(*lines)


def _closing(found: Suggestion) -> Iterator[str]:
    at = f"at {format4(found.target)} FLOPs"
    if found.refusal is not None:
        yield f"no answer {at} yet: {found.refusal}"
    for name, outlook in (("N_opt", found.n_params_opt), ("loss", found.loss_opt)):
        if outlook is not None:
            yield f"{name} {at}: {_outlook(outlook)} ({found.confidence:.0%})"
    if found.n_unfinished:
        yield f"planned runs without a result, which are not counted: {found.n_unfinished}"
    for text in found.unrepaired:
        yield f"not bracketed by these runs: {text}"


def _outlook(outlook: Outlook) -> str:
    now = f"{format4(outlook.estimate)} {interval_text(outlook.interval)}"
    return f"{now} now, {interval_text(outlook.expected_interval)} expected"


def _table(found: Suggestion) -> RenderableType:
    """Return one row for each cell, in the order of first use."""
    cells: dict[tuple[float, int], list[SuggestedRun]] = {}
    for run in found.runs:
        cells.setdefault((run.flops_budget, run.d_model), []).append(run)
    table = plain_table("budget", "d_model", "N", "D", "seeds", "reason")
    for runs in list(cells.values())[:MAX_CELLS]:
        first = runs[0]
        table.add_row(
            format4(first.flops_budget),
            str(first.d_model),
            format4(first.n_params),
            format4(first.n_tokens),
            ",".join(str(run.seed) for run in sorted(runs, key=lambda run: run.seed)),
            PURPOSES[first.purpose],
        )
    if len(cells) > MAX_CELLS:
        return Group(table, Text(f"and {len(cells) - MAX_CELLS} more cells: --json lists all"))
    return table
