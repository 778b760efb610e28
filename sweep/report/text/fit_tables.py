"""What a terminal shows of a fit's checks: agreement of the methods, the backtest, counting conventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sweep.report.numbers import four
from sweep.report.tables import plain_table

MAX_SENTENCES = 6


def agreement_parts(agreement: Mapping[str, Any] | None) -> list[RenderableType]:
    """Every method's N_opt, D_opt and loss at 1, 10 and 100 times the largest budget, and who disagrees."""
    if agreement is None:
        return []
    table = plain_table("agreement at C", "method", "N_opt", "D_opt", "loss")
    for row in agreement["rows"]:
        for name, told in row["methods"].items():
            values = (told["n_params_opt"], told["n_tokens_opt"], told["loss_opt"])
            table.add_row(four(row["flops"]), name, *map(four, values))
    sentences = agreement["disagreements"]
    parts: list[RenderableType] = [table]
    parts += [Text(sentence) for sentence in sentences[:MAX_SENTENCES]]
    if len(sentences) > MAX_SENTENCES:
        parts.append(Text(f"and {len(sentences) - MAX_SENTENCES} more disagreements, listed in fit.json"))
    return parts


def backtest_parts(backtest: Mapping[str, Any]) -> list[RenderableType]:
    """The errors on the budgets left out, or why there is no backtest."""
    if "refused" in backtest:
        return [Text(f"backtest: refused: {backtest['refused']}")]
    if not backtest:
        return []
    left_out = ", ".join(four(flops) for flops in backtest["left_out"])
    kind = "bands of C" if backtest["banded"] else "budgets"
    table = plain_table("method", "loss rms", "loss mean", "N_opt", "loss_opt")
    refused: list[RenderableType] = []
    for name, told in backtest["methods"].items():
        if "refused" in told:
            refused.append(Text(f"backtest of {name}: refused: {told['refused']}"))
            continue
        errors = (
            [told["loss_rms_error"]],
            [told["loss_mean_error"]],
            [budget.get("n_params_opt_error") for budget in told["budgets"]],
            [budget.get("loss_opt_error") for budget in told["budgets"]],
        )
        table.add_row(name, *(_percents(values) for values in errors))
    return [Text(f"backtest: errors on the {kind} left out ({left_out} FLOPs)"), table, *refused]


def _percents(values: list[float | None]) -> str:
    return ", ".join("" if value is None else f"{value:+.2%}" for value in values)


def reconcile_table(reconcile: Mapping[str, Any]) -> Table:
    """How the exponent moves with the counting of N and C, the offset and the method."""
    table = plain_table("method", "N", "C", "offset", "a", "b", "reason")
    for row in reconcile["rows"]:
        numbers = [four(row[symbol]) if symbol in row else "" for symbol in ("a", "b")]
        table.add_row(
            row["method"], row["n_params"], row["flops"], row["offset"], *numbers, row.get("refused", "")
        )
    return table
