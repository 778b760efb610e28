"""Predictions as text: the answer at each budget with the run to train, or the loss of a given run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from sweep.report.numbers import format4
from sweep.report.text.answer import (
    answer_sentence,
    in_few_lines,
    interval_text,
    methods_table,
    note_lines,
    of_new_run,
    reason_lines,
    shape_lines,
    warnings_of,
)
from sweep.report.text.fit import backtest_parts

if TYPE_CHECKING:  # scipy and pandas
    from sweep.fit import Prediction
    from sweep.fit.prediction import RunPrediction


def prediction_text(
    predictions: Sequence[Prediction], *, next_step: str | None = None, verbose: bool = False
) -> RenderableType:
    """Return the answer at each budget, its run and its reasons; `next_step` is the last line.

    `verbose` adds everything that every method says, and the backtest of each.
    """
    parts: list[RenderableType] = []
    for prediction in predictions:
        document = prediction.to_json()
        parts.append(_budget_text(document))
        if verbose:
            parts += map(Text, _details(document))
    if verbose and predictions:
        parts += backtest_parts(predictions[0].to_json()["backtest"] or {})
    if next_step is not None:
        parts.append(Text(next_step))
    return Group(*parts)


def _budget_text(document: Mapping[str, Any]) -> Group:
    before: list[RenderableType] = [Text(answer_sentence(document))]
    before += map(Text, shape_lines(document["shape"]))
    before += map(Text, _lifetime_lines(document["methods"]))
    if not (document["answer"] is None and len(document["methods"]) == 1):
        before += methods_table(document)
    else:
        before += map(Text, note_lines(document["methods"]))
    before += map(Text, reason_lines(document))
    return in_few_lines(before, warnings_of(document), [])


def _details(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield notes, warnings, refusals, the interval of one new run and the cost of a wrong N of every method.

    A warning or refusal is given once, with the methods that share it.
    """
    shared: dict[str, list[str]] = {}
    for name, method in document["methods"].items():
        if "refused" in method:
            shared.setdefault(f"refused: {method['refused']}", []).append(name)
            continue
        for warning in method.get("warnings", ()):
            shared.setdefault(f"warning: {warning}", []).append(name)
        yield from (f"{name}: {line}" for line in _numbers(method))
    yield from (f"{', '.join(names)}: {text}" for text, names in shared.items())


def _numbers(method: Mapping[str, Any]) -> Iterator[str]:
    interval = method["prediction_interval"].get("loss")
    if interval is not None:
        yield f"prediction interval for the loss of one new run: {interval_text(interval)}"
    off = method["loss_off_2x"]
    if off:
        half, double = format4(off["half_n"]), format4(off["double_n"])
        yield f"loss increase at half of N_opt: {half}, at twice N_opt: {double}"


def _lifetime_lines(methods: Mapping[str, Any]) -> Iterator[str]:
    for name, method in methods.items():
        lifetime = method.get("lifetime")
        if lifetime is not None:
            yield (
                f"{name}: serving {format4(lifetime['inference_tokens'])} tokens at equal loss, "
                f"N = {format4(lifetime['n_params'])} and D = {format4(lifetime['n_tokens'])} save "
                f"{lifetime['saved']:.1%} of training and inference compute"
            )


def run_prediction_text(prediction: RunPrediction) -> RenderableType:
    """Return the predicted loss of a given run with its interval."""
    interval, of_run = prediction.loss_prediction_interval, True
    if interval is None:
        interval, of_run = prediction.loss_interval, False
    level = ""
    if interval is not None:
        kind = "interval"
        if of_run:
            kind = f"prediction interval {of_new_run({'level_se': prediction.level_se})}"
        level = f" {interval_text(interval)} ({prediction.confidence:.0%} {kind})"
    reach = prediction.beyond_data
    where = "" if reach is None else f", {format4(reach)} times the largest fitted budget"
    lines = [
        f"N = {format4(prediction.n_params)} on D = {format4(prediction.n_tokens)} tokens "
        f"(C = {format4(prediction.flops)} FLOPs{where}): loss {format4(prediction.loss)}{level}, "
        f"by {prediction.method}",
        *(f"warning: {warning}" for warning in dict.fromkeys(prediction.warnings)),
    ]
    return Group(*map(Text, lines))
