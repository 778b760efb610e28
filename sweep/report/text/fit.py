"""Fits as text: laws with intervals, excluded points, agreement of the methods, backtest, conventions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweep.report.numbers import format4, plain_table
from sweep.report.text.hparams import hparam_line

if TYPE_CHECKING:  # scipy and pandas
    from sweep.fit import Fit

MAX_EXCLUDED = 12  # excluded points shown; fit.json lists all
MAX_SENTENCES = 6  # disagreements shown; fit.json lists all
SYMBOLS = (("a", "N_opt ∝ C^a"), ("b", "D_opt ∝ C^b"), ("E", "irreducible loss"))
UNVERIFIED = "* the coverage of this interval is not verified by simulation"


def fit_text(fitted: Fit) -> RenderableType:
    """Return every method's exponents with intervals or its refusal, and what was left out of the fit."""
    document = fitted.to_json()
    points = document["points"]
    parts: list[RenderableType] = [Text(f"{points['n']} points fitted")]
    parts += map(Text, _filter_lines(points["filters"]))
    parts += map(Text, _excluded_lines(points["excluded"]))
    if document["hyperparameters"] is not None:
        parts.append(Text(hparam_line(document["hyperparameters"])))
    for name, method in document["methods"].items():
        parts += _method_parts(name, method, document["conventions"]["constraint"])
    parts += agreement_parts(document["agreement"])
    parts += backtest_parts(document["backtest"])
    if document["reconcile"] is not None:
        parts += [Text("exponents by counting convention"), _reconcile_table(document["reconcile"])]
    return Group(*parts)


def _filter_lines(filters: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for applied in filters:
        value = applied["value"] if isinstance(applied["value"], str) else f"{applied['value']:g}"
        yield f"filter {applied['name']}={value} dropped {applied['n_dropped']} points"


def _excluded_lines(excluded: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for point in excluded[:MAX_EXCLUDED]:
        yield f"excluded {point['run_key']}: {point['reason']}"
    if len(excluded) > MAX_EXCLUDED:
        yield f"and {len(excluded) - MAX_EXCLUDED} more excluded points, listed in fit.json"


def _method_parts(name: str, method: Mapping[str, Any], constraint: str) -> Iterator[RenderableType]:
    if "refused" in method:
        yield Text(f"{name}: refused: {method['refused']}")
        return
    yield Text(f"{name} ({constraint} FLOPs, {method['confidence']:.0%} intervals)")
    if "budgets" in method:
        yield _budget_table(method["budgets"])
    for symbol, meaning in SYMBOLS:
        if symbol in method:
            yield Text(f"  {symbol} = {with_interval(method, symbol)}  {meaning}")
    if has_unverified(method):
        yield Text(f"  {UNVERIFIED}")
    if method.get("counting") == "non_embedding":
        yield Text("  a and b are for non-embedding parameters; N_opt is in total parameters")
    if "assumes" in method:
        yield Text(f"  assumes {method['assumes']}")
    if method.get("bias") is not None:
        yield Text(f"  {_bias_line(method['bias'])}")
    for warning in method.get("warnings", ()):
        yield Text(f"  warning: {warning}")


def _bias_line(bias: Mapping[str, Any]) -> str:
    corrected = "corrected" if bias["corrected"] else "not corrected: set fit.isoflop_bias_corrected=true"
    return f"estimated bias: N_opt {bias['n_params_opt']:+.2%}, a {bias['a']:+.4f} ({corrected})"


def with_interval(method: Mapping[str, Any], key: str) -> str:
    """Format `method[key]` with its interval, and an asterisk if that interval's coverage is not verified."""
    interval = method["ci"].get(key)
    if interval is None:
        return format4(method[key])
    asterisk = " *" if key in method.get("unproved", ()) else ""
    return f"{format4(method[key])}  {interval_text(interval)}{asterisk}"


def has_unverified(method: Mapping[str, Any]) -> bool:
    """Return True if an interval of the method carries an asterisk."""
    return any(key in method["ci"] for key in method.get("unproved", ()))


def interval_text(interval: Sequence[float]) -> str:
    """Format an interval as [low, high]."""
    return f"[{format4(interval[0])}, {format4(interval[1])}]"


def _budget_table(budgets: Iterable[Mapping[str, Any]]) -> Table:
    table = plain_table("budget", "N_opt", "D_opt", "loss", "status")
    for budget in budgets:
        values = (budget.get(key) for key in ("n_params_opt", "n_tokens_opt", "loss_opt"))
        numbers = ("" if value is None else format4(value) for value in values)
        table.add_row(format4(budget["flops"]), *numbers, budget["status"])
    return table


def agreement_parts(agreement: Mapping[str, Any] | None) -> list[RenderableType]:
    """Return every method's optimum at and beyond the largest budget, and the methods that disagree."""
    if agreement is None:
        return []
    table = plain_table("C", "method", "N_opt", "D_opt", "loss")
    for row in agreement["rows"]:
        for name, optimum in row["methods"].items():
            values = (optimum["n_params_opt"], optimum["n_tokens_opt"], optimum["loss_opt"])
            table.add_row(format4(row["flops"]), name, *map(format4, values))
    sentences = agreement["disagreements"]
    parts: list[RenderableType] = [Text("optimum by method"), table]
    parts += map(Text, sentences[:MAX_SENTENCES])
    if len(sentences) > MAX_SENTENCES:
        parts.append(Text(f"and {len(sentences) - MAX_SENTENCES} more disagreements, listed in fit.json"))
    return parts


def backtest_parts(backtest: Mapping[str, Any]) -> list[RenderableType]:
    """Return the prediction errors at the held-out budgets, or the reason that there is no backtest."""
    if "refused" in backtest:
        return [Text(f"backtest: refused: {backtest['refused']}")]
    if not backtest:
        return []
    kind = "bands of C" if backtest["banded"] else "budgets"
    left_out = ", ".join(map(format4, backtest["left_out"]))
    table = plain_table("method", "loss rms", "loss mean", "N_opt", "loss_opt")
    refused: list[RenderableType] = []
    for name, entry in backtest["methods"].items():
        if "refused" in entry:
            refused.append(Text(f"backtest of {name}: refused: {entry['refused']}"))
        else:
            table.add_row(name, *_backtest_cells(entry))
    return [Text(f"backtest: relative errors at the held-out {kind} ({left_out} FLOPs)"), table, *refused]


def _backtest_cells(entry: Mapping[str, Any]) -> Iterator[str]:
    yield _percents([entry["loss_rms_error"]])
    yield _percents([entry["loss_mean_error"]])
    yield _percents([budget.get("n_params_opt_error") for budget in entry["budgets"]])
    yield _percents([budget.get("loss_opt_error") for budget in entry["budgets"]])


def _percents(values: Iterable[float | None]) -> str:
    return ", ".join("" if value is None else f"{value:+.2%}" for value in values)


def _reconcile_table(reconcile: Mapping[str, Any]) -> Table:
    """Return the exponents under every convention for N and C, offset and method."""
    table = plain_table("method", "N", "C", "offset", "a", "b", "reason")
    for row in reconcile["rows"]:
        numbers = (format4(row[symbol]) if symbol in row else "" for symbol in ("a", "b"))
        table.add_row(
            row["method"], row["n_params"], row["flops"], row["offset"], *numbers, row.get("refused", "")
        )
    return table
