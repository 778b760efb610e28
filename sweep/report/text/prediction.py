"""Predictions as text: every method's optimum at each budget, and a concrete run to train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from sweep.report.numbers import format4, plain_table
from sweep.report.text.fit import UNVERIFIED, backtest_parts, has_unverified, interval_text, with_interval

if TYPE_CHECKING:  # scipy and pandas
    from sweep.fit import Prediction

COLUMNS = {
    "N_opt": "n_params_opt",
    "D_opt": "n_tokens_opt",
    "D/N": "tokens_per_param_opt",
    "loss": "loss_opt",
}


def prediction_text(predictions: Sequence[Prediction]) -> RenderableType:
    """Return a table of optima for each budget; the backtest comes first if a budget extrapolates."""
    parts: list[RenderableType] = []
    extrapolating = [item for item in predictions if item.backtest and (item.beyond_data or 0) > 1]
    if extrapolating:
        parts += backtest_parts(extrapolating[0].backtest or {})
    for prediction in predictions:
        parts += _budget_parts(prediction.to_json())
    return Group(*parts)


def _budget_parts(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    beyond = document["beyond_data"]
    reach = "" if beyond is None else f", {format4(beyond)} times the largest fitted budget"
    table = plain_table("method", *COLUMNS)
    lines: list[str] = []
    unverified = False
    for name, method in document["methods"].items():
        if "refused" in method:
            lines.append(f"{name}: refused: {method['refused']}")
            continue
        table.add_row(
            name, *(with_interval(method, key) if key in method else "" for key in COLUMNS.values())
        )
        lines += (f"{name}: {line}" for line in _method_lines(method))
        unverified |= has_unverified(method)
    if unverified:
        lines.insert(0, UNVERIFIED)
    yield Text(f"C = {format4(document['flops'])} FLOPs{reach}")
    yield table
    yield from map(Text, lines)
    if document["shape"]:
        yield Text(
            f"train: {', '.join(f'{key} {_value(value)}' for key, value in document['shape'].items())}"
        )


def _method_lines(method: Mapping[str, Any]) -> Iterator[str]:
    """Yield notes, warnings, the interval of one new run, the cost of a wrong N, and the lifetime optimum."""
    yield from method.get("notes", ())
    yield from (f"warning: {warning}" for warning in method.get("warnings", ()))
    interval = method["prediction_interval"].get("loss")
    if interval is not None:
        yield f"prediction interval for the loss of one new run: {interval_text(interval)}"
    off = method["loss_off_2x"]
    if off:
        half, double = format4(off["half_n"]), format4(off["double_n"])
        yield f"loss increase at half of N_opt: {half}, at twice N_opt: {double}"
    lifetime = method.get("lifetime")
    if lifetime is not None:
        yield (
            f"serving {format4(lifetime['inference_tokens'])} tokens at equal loss, N = "
            f"{format4(lifetime['n_params'])} and D = {format4(lifetime['n_tokens'])} save "
            f"{lifetime['saved']:.1%} of training and inference compute"
        )


def _value(value: object) -> str:
    return format4(value) if isinstance(value, (int, float)) else str(value)
