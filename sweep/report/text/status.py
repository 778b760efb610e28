"""What a terminal shows of a sweep under way: progress, states, rates, the ends of failed runs' logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.report.hparam_summary import UNMEASURED, hparam_line
from sweep.report.numbers import duration, four
from sweep.report.tables import plain_table
from sweep.store.status import RunStatus, SweepStatus

LINE_RUNS = 4  # running runs named in one plain line of progress
TABLE_RUNS = 500  # more are listed in plain columns: laying out a table takes seconds
TAILS, TAIL_LINES = 5, 6  # failed runs whose log is shown, and how much of it; --json holds more


def progress_line(status: SweepStatus) -> str:
    """A sweep in one line, for logs and pipes."""
    running = [run for run in status.runs if run.status == "leased"]
    named = ", ".join(f"{run.name} {_frac(run):.0%}" for run in running[:LINE_RUNS])
    more = f" and {len(running) - LINE_RUNS} more" if len(running) > LINE_RUNS else ""
    return f"{_summary(status)}{'; training ' if named else ''}{named}{more}"


def progress_view(status: SweepStatus) -> RenderableType:
    """A bar for each running run and one for the sweep."""
    table = Table.grid(padding=(0, 1))
    for run in status.runs:
        if run.status == "leased":
            table.add_row(
                Text(run.name),
                ProgressBar(total=1.0, completed=_frac(run), width=30),
                Text(f"step {run.step}/{run.n_steps}"),
            )
    done = status.flops_done / max(status.flops_total, 1)
    table.add_row(Text("sweep"), ProgressBar(total=1.0, completed=done, width=30), Text(_summary(status)))
    return table


def _frac(run: RunStatus) -> float:
    return min(1.0, run.step / run.n_steps) if run.n_steps else 0.0


def _summary(status: SweepStatus) -> str:
    counts = ", ".join(
        f"{n} {state}" for state, n in status.counts.items() if state not in ("planned", "leased")
    )
    done = status.flops_done / max(status.flops_total, 1)
    left = "" if status.finished else f", {duration(status.eta_s)} left"
    return f"{len(status.runs)} runs: {counts or 'none done yet'}; {done:.0%} of the FLOPs{left}"


def status_text(status: SweepStatus, hparams: Mapping[str, Any] | str = UNMEASURED) -> RenderableType:
    """Every run's state, what failed runs left in their logs, and the sweep in a few lines."""
    header = ("run", "key", "state", "attempts", "step", "loss", "reason")
    rows = [_row(run) for run in status.runs]
    cancelled = " (cancelled: sweep run starts it again)" if status.cancelled else ""
    lines = [*_log_lines(status), _summary(status) + cancelled, *_rates(status), hparam_line(hparams)]
    if len(rows) > TABLE_RUNS:
        return Text("\n".join([*_columns([header, *rows]), *lines]), overflow="ignore", no_wrap=True)
    table = plain_table(*header)
    for row in rows:
        table.add_row(*row)
    return Group(table, *(Text(line) for line in lines))


def _row(run: RunStatus) -> tuple[str, ...]:
    excluded = f"excluded: {run.excluded}" if run.excluded else None
    return (
        run.name,
        run.run_key,
        run.status,
        str(run.attempts),
        f"{run.step}/{run.n_steps}",
        "" if run.loss is None else f"{run.loss:.4f}",
        "; ".join(reason for reason in (run.reason, excluded) if reason),
    )


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _log_lines(status: SweepStatus) -> Iterator[str]:
    failed = [run for run in status.runs if run.log_tail]
    for run in failed[:TAILS]:
        yield f"{run.name} ({run.run_key}) {run.status}, the end of its log:"
        yield from (f"    {line}" for line in run.log_tail[-TAIL_LINES:])
    if len(failed) > TAILS:
        yield f"and {len(failed) - TAILS} more failed runs, whose logs --json tells"


def _rates(status: SweepStatus) -> Iterator[str]:
    """How fast work went while there was any, and how much of the devices it used."""
    told = status.throughput
    if told.runs_per_hour is None or told.flops_per_hour is None or told.flops_per_device_second is None:
        return
    used = "peak not known" if told.utilisation is None else f"{told.utilisation:.1%} of the peak"
    yield (
        f"{four(told.runs_per_hour)} runs and {four(told.flops_per_hour)} FLOPs an hour; "
        f"{four(told.flops_per_device_second)} FLOP/s a device ({used}) over {duration(told.device_s)} of it"
    )
