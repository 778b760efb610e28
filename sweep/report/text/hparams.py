"""Hyperparameter checks as text: a summary in one line, and a table of every corner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from sweep.report.numbers import format4, plain_table

if TYPE_CHECKING:  # these import the fitter, which plans and status do not need
    from sweep.report.hparams import AxisCheck, HparamReport


def hparam_line(summary: Mapping[str, Any] | str) -> str:
    """Return one line on a summary by `report.hparam_summary.hyperparameters`."""
    if isinstance(summary, str):
        return f"hyperparameters: {summary}; sweep check-hparams experiment=NAME measures their loss gap"
    worst = summary["worst"]
    if worst is None:
        return "hyperparameters: no corner of the check is complete; sweep check-hparams continues it"
    low, high = summary["flops_range"]
    n_incomplete = summary["n_incomplete"]
    missing = f"; {n_incomplete} measurements incomplete" if n_incomplete else ""
    return (
        f"hyperparameters: loss gap {_gap(worst)} nats to the best {worst['axis']} at the worst of "
        f"{summary['n_corners']} corners ({worst['corner']}), {format4(low)} to {format4(high)} FLOPs"
        f"{missing}"
    )


def _gap(check: Mapping[str, Any]) -> str:
    """Format a loss gap with its standard error; one that is a lower bound says so."""
    bound = "" if check["status"] == "ok" else "at least "
    error = "" if check["stderr"] is None else f" ± {check['stderr']:.4f}"
    return f"{bound}{check['loss_left']:.4f}{error}"


def hparam_text(report: HparamReport) -> RenderableType:
    """Return a table of every corner: the loss at the rule's setting, differences to it, and the loss gap."""
    table = plain_table("corner", "setting", "rule", "loss", "below", "above", "best", "gap", "status")
    for corner in report.corners:
        for axis in corner.axes:
            table.add_row(corner.name, axis.axis, format4(axis.rule), *_cells(axis))
    arm = [Text(f"arm {report.arm}")] if report.arm else []
    return Group(*arm, table)


def _cells(axis: AxisCheck) -> list[str]:
    found = axis.found
    if found.loss_left is None or found.status == "incomplete":
        return ["", "", "", "", "", found.status]
    complete = [[loss for loss in row if loss is not None] for row in axis.losses if None not in row]
    means = [fmean(column) for column in zip(*complete, strict=True)]
    rule = axis.values.index(axis.rule)
    return [
        f"{means[rule]:.4f}",
        *(f"{mean - means[rule]:+.4f}" for index, mean in enumerate(means) if index != rule),
        "" if found.factor_opt is None else f"×{found.factor_opt:.2f}",
        _gap(asdict(found)),
        "ok" if found.within else f"{found.status}, above tolerance",
    ]
