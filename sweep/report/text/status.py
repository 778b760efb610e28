"""Sweep status as text: progress, states, rates, and the log tails of failed runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.report.hparam_summary import UNMEASURED
from sweep.report.numbers import duration, format4, plain_table
from sweep.report.text.hparams import hparam_line
from sweep.store.attempts.attempts import STOPPED
from sweep.store.status import RunStatus, SweepStatus

MAX_NAMED = 4  # running runs named in one line of progress
MAX_TABLE_RUNS = 500  # more are printed as plain columns: rich takes seconds to lay out a large table
MAX_LOGS, LOG_LINES = 5, 6  # failed runs shown with a log tail, and its lines; --json has all
NO_REMARKS: Mapping[str, str] = {}
HEADER = ("run", "key", "state", "attempts", "step", "loss", "reason")


def progress_line(status: SweepStatus) -> str:
    """Return the progress of a sweep in one line, for logs and pipes."""
    running = [run for run in status.runs if run.status == "running"]
    names = ", ".join(f"{run.name} {_fraction(run):.0%}" for run in running[:MAX_NAMED])
    more = f" and {len(running) - MAX_NAMED} more" if len(running) > MAX_NAMED else ""
    return f"{_summary(status)}{'; training ' if names else ''}{names}{more}"


def progress_view(status: SweepStatus) -> RenderableType:
    """Return a progress bar for each running run and one for the sweep."""
    table = Table.grid(padding=(0, 1))
    for run in status.runs:
        if run.status == "running":
            bar = ProgressBar(total=1.0, completed=_fraction(run), width=30)
            table.add_row(Text(run.name), bar, Text(f"step {run.step}/{run.n_steps}"))
    bar = ProgressBar(total=1.0, completed=_flops_fraction(status), width=30)
    table.add_row(Text("sweep"), bar, Text(_summary(status)))
    return table


def _fraction(run: RunStatus) -> float:
    return min(1.0, run.step / run.n_steps) if run.n_steps else 0.0


def _flops_fraction(status: SweepStatus) -> float:
    return status.flops_done / max(status.flops_total, 1)


def _summary(status: SweepStatus) -> str:
    counts = ", ".join(
        f"{n} {state}" for state, n in status.counts.items() if state not in ("planned", "running")
    )
    eta_s = None if status.finished else status.eta_s
    left = "" if eta_s is None else f", about {duration(eta_s)} left"
    return f"{len(status.runs)} runs: {counts or 'none done'}; {_flops_fraction(status):.0%} of FLOPs{left}"


def status_text(
    status: SweepStatus,
    hparams: Mapping[str, Any] | str = UNMEASURED,
    remarks: Mapping[str, str] = NO_REMARKS,
) -> RenderableType:
    """Return the state of every run, log tails of failed runs, and a summary of the sweep.

    `remarks` are texts by run key, shown with the reason of a run's state.
    """
    rows = [_row(run, remarks.get(run.run_key)) for run in status.runs]
    cancelled = " (cancelled: sweep run restarts it)" if status.cancelled else ""
    lines = [*_log_lines(status), _summary(status) + cancelled, *_rates(status), hparam_line(hparams)]
    if len(rows) > MAX_TABLE_RUNS:
        return Text("\n".join([*_columns([HEADER, *rows]), *lines]), overflow="ignore", no_wrap=True)
    table = plain_table(*HEADER)
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"  # names of arms are long
    for row in rows:
        table.add_row(*row)
    return Group(table, *map(Text, lines))


def _row(run: RunStatus, remark: str | None) -> tuple[str, ...]:
    excluded = f"excluded: {run.excluded}" if run.excluded else None
    return (
        run.name,
        run.run_key,
        run.status,
        str(run.attempts),
        f"{run.step}/{run.n_steps}",
        "" if run.loss is None else f"{run.loss:.4f}",
        "; ".join(reason for reason in (run.reason, remark, excluded) if reason),
    )


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _log_lines(status: SweepStatus) -> Iterator[str]:
    failed = [run for run in status.runs if run.log_tail and run.status != STOPPED]
    for run in failed[:MAX_LOGS]:
        yield f"{run.name} ({run.run_key}) {run.status}, last lines of its log:"
        yield from (f"    {line}" for line in run.log_tail[-LOG_LINES:])
    if len(failed) > MAX_LOGS:
        yield f"and {len(failed) - MAX_LOGS} more failed runs; --json includes their logs"


def _rates(status: SweepStatus) -> Iterator[str]:
    """Yield a line on throughput and utilisation while workers were active, if it was observed."""
    rates = status.throughput
    if rates.runs_per_hour is None or rates.flops_per_hour is None or rates.flops_per_device_second is None:
        return
    used = "peak unknown" if rates.utilisation is None else f"{rates.utilisation:.1%} of peak"
    yield (
        f"{format4(rates.runs_per_hour)} runs and {format4(rates.flops_per_hour)} FLOPs per hour; "
        f"{format4(rates.flops_per_device_second)} FLOP/s per device ({used}) "
        f"over {duration(rates.device_s)} of device time"
    )
