"""The answer at a budget as text: the sentence, the methods next to it, and the reasons for it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from sweep.fit.combination import shares
from sweep.report.numbers import NarrowTable, format4

WIDTH = 80  # columns of an ordinary terminal, for which lines are counted
MAX_LINES = 20  # of a result that a person reads first
MAX_WARNINGS = 3
MARKS = {
    "?": "? lack of fit",
    "*": "* coverage not verified",
}
NEGLIGIBLE = 1e-6  # a limit below this is not distinguished from zero


def value_text(value: float, interval: Sequence[float] | None) -> str:
    """Format a positive value with its interval; one that the points do not bound says so.

    >>> value_text(1.69, (1.6, 1.75)), value_text(0.0, (0.0, 1e-11)), value_text(0.5, (0.0, 1.2))
    ('1.69 [1.6, 1.75]', 'not identified by these points', '0.5, at most 1.2')
    """
    if interval is None:
        return format4(value)
    low, high = interval
    if abs(high) < NEGLIGIBLE:
        return "not identified by these points"
    if abs(low) < NEGLIGIBLE:
        at = "" if value < NEGLIGIBLE else f"{format4(value)}, "
        return f"{at}at most {format4(high)}"
    return f"{format4(value)} {interval_text(interval)}"


def interval_text(interval: Sequence[float]) -> str:
    """Format an interval as [low, high]."""
    return f"[{format4(interval[0])}, {format4(interval[1])}]"


def answer_sentence(prediction: Mapping[str, Any]) -> str:
    """Return the answer of a prediction, as `Prediction.to_json` gives it, in one sentence.

    For a published law it is that of its only method, and the reason of a refusal if there is no answer.
    """
    name, answer = _answer(prediction)
    if answer is None:
        return "no answer: this fit was written without one; fit again"
    if "refused" in answer:
        return f"no answer: {answer['refused']}"
    ci = answer["ci"]
    loss_interval = answer["prediction_interval"].get("loss")
    exponent = f"; N_opt ∝ C^{answer['a']:.2f}" if "a" in answer else ""
    return (
        f"at C = {format4(prediction['flops'])} FLOPs train "
        f"N = {value_text(answer['n_params_opt'], ci.get('n_params_opt'))} parameters on "
        f"D = {value_text(answer['n_tokens_opt'], ci.get('n_tokens_opt'))} tokens "
        f"(D/N {format4(answer['tokens_per_param_opt'])}), "
        f"loss {value_text(answer['loss_opt'], loss_interval or ci.get('loss_opt'))}{exponent}"
        f"{_qualification(name, prediction['beyond_data'], answer)}"
    )


def _answer(prediction: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return the answer; without one, that of the only method, with its name."""
    if prediction["answer"] is not None:
        return None, prediction["answer"]
    if len(prediction["methods"]) == 1:
        ((name, method),) = prediction["methods"].items()
        return name, method
    return None, None


def _qualification(name: str | None, reach: float | None, answer: Mapping[str, Any]) -> str:
    """Return the method of a published law, the distance to the points and the level of the intervals."""
    parts = [] if name is None else [f"by {name}"]
    parts += [] if reach is None else [f"{format4(reach)} times the largest fitted budget"]
    if "confidence" in answer and answer["ci"]:
        of_run = f", loss {of_new_run(answer)}" if answer["prediction_interval"] else ""
        parts.append(f"{answer['confidence']:.0%} intervals{of_run}")
    return f" ({'; '.join(parts)})" if parts else ""


def of_new_run(prediction: Mapping[str, Any]) -> str:
    """Return the words for an interval of one new run: for these held-out windows if no other is known."""
    known = prediction.get("level_se") is not None
    return "of one new run" if known else "of one new run on these held-out windows"


def reason_lines(prediction: Mapping[str, Any]) -> Iterator[str]:
    """Yield why the answer is what it is, and how firm it is; the weights are in the table of methods."""
    answer = prediction["answer"]
    if answer is None or "refused" in answer:
        return
    backtest = "".join(_backtest_words(prediction["backtest"], answer["weights"]))
    yield f"why: methods weighted by noise and backtests{backtest}"
    methods = [method for method in prediction["methods"].values() if "refused" not in method]
    spans = ", ".join(
        f"{words} {format4(min(values))} to {format4(max(values))}"
        for key, words in (("n_params_opt", "N_opt"), ("loss_opt", "loss"))
        if (values := [method[key] for method in methods if key in method])
    )
    yield f"how firm: the methods span {spans}"


def _backtest_words(backtest: Mapping[str, Any] | None, weights: Mapping[str, Any]) -> Iterator[str]:
    """Yield the weighted errors at the budgets that a fit without them had to predict."""
    if not backtest:
        return
    if "refused" in backtest:
        yield " of other sweeps: this one has too few budgets for its own"
        return
    parts = []
    for quantity, words in (("loss", "loss"), ("n_params", "N_opt")):
        errors = _mean_errors(backtest["methods"], weights[quantity], f"{quantity}_opt_error")
        if any(error is not None for error in errors):
            shown = ", ".join("–" if error is None else f"{error:+.1%}" for error in errors)
            parts.append(f"{words} {shown}")
    if parts:
        yield f"; errors at {', '.join(map(format4, backtest['left_out']))} from below: {'; '.join(parts)}"


def methods_table(prediction: Mapping[str, Any]) -> list[RenderableType]:
    """Return N_opt and loss of every method with its marks and their legend, and the refusals.

    Where every method is refused, each reason is given once, with the methods that it stops.
    """
    methods = prediction["methods"]
    answer = prediction["answer"] or {}
    refused = {name: method["refused"] for name, method in methods.items() if "refused" in method}
    rows = {name: method for name, method in methods.items() if name not in refused}
    shares = answer.get("weights", {}).values()
    weighted = [name for name in refused if any(name in share for share in shares)]
    parts: list[RenderableType] = []
    marks: set[str] = set()
    if rows or weighted:
        table = NarrowTable("method", "loss", "N_opt", "weight N / loss")
        for name, method in rows.items():
            table.add_row(*_row(name, method, answer, marks))
        for name in weighted:
            table.add_row(name, "refused here", "", _weight_cell(name, answer))
        parts.append(table)
    for name in weighted:
        del refused[name]
    notes = [text for mark, text in MARKS.items() if mark in marks]
    if weighted:
        notes.append("refused here: --verbose says why")
    if refused and not rows:
        parts += map(Text, _refusal_lines(refused, answer.get("refused")))
    elif refused:
        notes.append(f"refused: {', '.join(refused)}")
    if notes:
        parts.append(Text("; ".join(notes)))
    return parts


def _refusal_lines(refused: Mapping[str, str], of_answer: str | None) -> Iterator[str]:
    """Yield each reason with its methods, except that of the answer, which its sentence has given."""
    names: dict[str, list[str]] = {}
    for name, reason in refused.items():
        names.setdefault(reason, []).append(name)
    for reason, stopped in names.items():
        if len(names) == 1:
            yield from () if reason == of_answer else (f"every method is refused: {reason}",)
        else:
            yield f"{', '.join(stopped)}: {reason}"


def _row(name: str, method: Mapping[str, Any], answer: Mapping[str, Any], marks: set[str]) -> Iterator[str]:
    """Yield the cells of one method, and add its marks to `marks`."""
    doubted = "?" if method.get("doubted") else ""
    marks.update(doubted)
    yield f"{name}{doubted}"
    for key in ("loss_opt", "n_params_opt"):
        if key not in method:
            yield ""
            continue
        unproved = "*" if key in method.get("unproved", ()) and key in method["ci"] else ""
        marks.update(unproved)
        yield value_text(method[key], method["ci"].get(key)) + unproved
    yield _weight_cell(name, answer)


def _weight_cell(name: str, answer: Mapping[str, Any]) -> str:
    """Return the weights of a method in N_opt and in the loss; a dash where it has none."""
    weights = answer.get("weights", {})
    shares = [weights[quantity].get(name) for quantity in ("n_params", "loss") if quantity in weights]
    return " / ".join("–" if share is None else f"{share:.0%}" for share in shares)


def note_lines(methods: Mapping[str, Any]) -> Iterator[str]:
    """Yield the notes on the source of published laws."""
    for method in methods.values():
        yield from method.get("notes", ())


def shape_lines(shape: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the concrete run, and the notes on a shape that no trained run had."""
    if shape is None:
        return
    values = {key: value for key, value in shape.items() if key not in ("method", "notes")}
    notes = "".join(f"; {note}" for note in shape.get("notes", ()))
    yield f"train: {', '.join(f'{key} {_exact(value)}' for key, value in values.items())}{notes}"


def _exact(value: object) -> str:
    """Format an integer with all its digits, so that it can be copied."""
    return format4(value) if isinstance(value, float) else str(value)


def _mean_errors(methods: Mapping[str, Any], weights: Mapping[str, float], key: str) -> list[float | None]:
    """Return the error of the methods' weighted mean at each budget held out; None where too few have one."""
    tested = {name: entry["budgets"] for name, entry in methods.items() if "budgets" in entry}
    n_budgets = max((len(budgets) for budgets in tested.values()), default=0)
    means: list[float | None] = []
    for index in range(n_budgets):
        known = {
            name: budgets[index][key]
            for name, budgets in tested.items()
            if index < len(budgets) and budgets[index].get(key) is not None
        }
        share = shares(weights, known)
        means.append(sum(share[name] * known[name] for name in share) if share else None)
    return means


def warnings_of(prediction: Mapping[str, Any]) -> list[str]:
    """Return the warnings of the answer, and those that all methods share, each once and as a line.

    Warnings of single methods are left to the marks of the table.
    """
    answer = prediction["answer"] or {}
    found = list(answer.get("warnings", ()))
    methods = [method for method in prediction["methods"].values() if "refused" not in method]
    every = [method.get("warnings", ()) for method in methods]
    if every:
        found += [warning for warning in every[0] if all(warning in others for others in every)]
    return [f"warning: {warning}" for warning in dict.fromkeys(found)]


def in_few_lines(
    before: Sequence[RenderableType], warnings: Sequence[str], after: Sequence[RenderableType]
) -> Group:
    """Return the parts with as many warnings as fit: at most MAX_WARNINGS, and MAX_LINES lines in all.

    The first warning is always shown; a line counts those that are left out.
    """
    shown: list[RenderableType] = []
    for number, warning in enumerate(warnings[:MAX_WARNINGS]):
        is_last = number == len(warnings) - 1
        n_lines = _n_lines([*before, *shown, Text(warning), *after]) + (not is_last)
        if shown and n_lines > MAX_LINES:
            break
        shown.append(Text(warning))
    left = len(warnings) - len(shown)
    if left:
        shown.append(Text(f"{left} more warning{'s' if left > 1 else ''} with --verbose"))
    return Group(*before, *shown, *after)


def _n_lines(parts: Sequence[RenderableType]) -> int:
    console = Console(file=io.StringIO(), width=WIDTH)
    console.print(Group(*parts))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().count("\n")
