"""Fits as text: the answer in few lines, or all laws and checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweep.report.numbers import NarrowTable, format4, plain_table
from sweep.report.text.answer import (
    answer_sentence,
    in_few_lines,
    methods_table,
    reason_lines,
    value_text,
    warnings_of,
)
from sweep.report.text.hparams import hparam_line

if TYPE_CHECKING:  # scipy and pandas
    from sweep.fit import Fit, Prediction

MAX_EXCLUDED = 12  # excluded points shown; fit.json lists all
MAX_SENTENCES = 6  # disagreements shown; fit.json lists all
SYMBOLS = (("a", "N_opt ∝ C^a"), ("b", "D_opt ∝ C^b"), ("E", "irreducible loss"))


def fit_text(
    fitted: Fit,
    prediction: Prediction | None,
    *,
    closing: Sequence[str] = (),
    verbose: bool = False,
) -> RenderableType:
    """Return the answer of a fit at one budget with its reasons, in at most 20 lines of 80 columns.

    `prediction` is that of the fit at this budget, None for a fit without points; `closing` are the last
    lines. `verbose` puts everything that fit.json holds before the answer.
    """
    document = fitted.to_json()
    details = _details(document) if verbose else []
    before: list[RenderableType] = [Text(_points_line(document["points"]))]
    after: list[RenderableType] = []
    warnings: list[str] = []
    if prediction is not None:
        at_budget = prediction.to_json()
        before += [Text(answer_sentence(at_budget)), *methods_table(at_budget)]
        before += map(Text, reason_lines(at_budget))
        warnings += warnings_of(at_budget)
    if document["hyperparameters"] is not None:
        warnings.append(hparam_line(document["hyperparameters"]))
    if document["reconcile"] is not None:
        after += [Text("exponents by counting convention"), _reconcile_table(document["reconcile"])]
    after += map(Text, closing)
    return Group(*details, in_few_lines(before, warnings, after))


def _points_line(points: Mapping[str, Any]) -> str:
    excluded = f"; {len(points['excluded'])} excluded" if points["excluded"] else ""
    if not points["flops_range"]:
        return f"{points['n']} points fitted{excluded}"
    low, high = map(format4, points["flops_range"])
    return f"{points['n']} points fitted, {low} to {high} FLOPs{excluded}"


def _details(document: Mapping[str, Any]) -> list[RenderableType]:
    """Return filters, excluded points, and every method's constants, budgets, warnings and checks."""
    points = document["points"]
    parts: list[RenderableType] = [*map(Text, _filter_lines(points["filters"]))]
    parts += map(Text, _excluded_lines(points["excluded"]))
    refusals: dict[str, list[str]] = {}
    for name, method in document["methods"].items():
        if "refused" in method:
            refusals.setdefault(method["refused"], []).append(name)
        else:
            parts += _method_parts(name, method, document["conventions"]["constraint"])
    parts += [Text(f"{', '.join(names)}: refused: {reason}") for reason, names in refusals.items()]
    parts += map(Text, _warning_lines(document["methods"]))
    parts += agreement_parts(document["agreement"])
    parts += backtest_parts(document["backtest"])
    return parts


def _warning_lines(methods: Mapping[str, Any]) -> Iterator[str]:
    """Yield every warning once, with the methods that give it."""
    names: dict[str, list[str]] = {}
    for name, method in methods.items():
        for warning in method.get("warnings", ()):
            names.setdefault(warning, []).append(name)
    yield from (f"warning: {warning} ({', '.join(given)})" for warning, given in names.items())


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
    yield Text(f"{name} ({constraint} FLOPs, {method['confidence']:.0%} intervals)")
    if "budgets" in method:
        yield _budget_table(method["budgets"])
    for symbol, meaning in SYMBOLS:
        if symbol in method:
            yield Text(f"  {symbol} = {_with_interval(method, symbol)}  {meaning}")
    if any(key in method["ci"] for key in method.get("unproved", ())):
        yield Text("  * the coverage of this interval is not verified by simulation")
    if method.get("counting") == "non_embedding":
        yield Text("  a and b are for non-embedding parameters; N_opt is in total parameters")
    if "assumes" in method:
        yield Text(f"  assumes {method['assumes']}")
    if method.get("bias") is not None:
        yield Text(f"  {_bias_line(method['bias'])}")


def _bias_line(bias: Mapping[str, Any]) -> str:
    corrected = "corrected" if bias["corrected"] else "not corrected: set fit.isoflop.bias_corrected=true"
    return f"estimated bias: N_opt {bias['n_params_opt']:+.2%}, a {bias['a']:+.4f} ({corrected})"


def _with_interval(method: Mapping[str, Any], key: str) -> str:
    """Format `method[key]` with its interval, and an asterisk if that interval's coverage is not verified."""
    interval = method["ci"].get(key)
    asterisk = " *" if interval is not None and key in method.get("unproved", ()) else ""
    return value_text(method[key], interval) + asterisk


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
    table = NarrowTable("C", "method", "N_opt", "loss", "D_opt")
    for row in agreement["rows"]:
        for name, optimum in row["methods"].items():
            values = (optimum["n_params_opt"], optimum["loss_opt"], optimum["n_tokens_opt"])
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
