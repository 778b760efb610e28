"""The answer at a budget as text: the sentence, the methods next to it, and the reasons for it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from sweep.report.numbers import NarrowTable, format4

WIDTH = 80  # columns of an ordinary terminal, for which lines are counted
MAX_LINES = 20  # of a result that a person reads first
MAX_WARNINGS = 3
MARKS = {
    "?": "? the points show lack of fit, so that this method's intervals are too narrow",
    "*": "* the coverage of this interval is not verified by simulation",
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
    reach = prediction["beyond_data"]
    where = "" if reach is None else f" ({format4(reach)} times the largest fitted)"
    exponent = f"; N_opt ∝ C^{answer['a']:.2f}" if "a" in answer else ""
    return (
        f"at C = {format4(prediction['flops'])} FLOPs{where} train "
        f"N = {value_text(answer['n_params_opt'], ci.get('n_params_opt'))} parameters on "
        f"D = {value_text(answer['n_tokens_opt'], ci.get('n_tokens_opt'))} tokens "
        f"(D/N = {format4(answer['tokens_per_param_opt'])}), "
        f"loss {value_text(answer['loss_opt'], loss_interval or ci.get('loss_opt'))}{exponent}"
        f"{_level(answer, loss_interval is not None)}{'' if name is None else f' (by {name})'}"
    )


def _answer(prediction: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return the answer; without one, that of the only method, with its name."""
    if prediction["answer"] is not None:
        return None, prediction["answer"]
    if len(prediction["methods"]) == 1:
        ((name, method),) = prediction["methods"].items()
        return name, method
    return None, None


def _level(answer: Mapping[str, Any], of_run: bool) -> str:
    if "confidence" not in answer or not answer["ci"]:
        return ""
    run = ", that of the loss for one new run" if of_run else ""
    return f" ({answer['confidence']:.0%} intervals{run})"


def reason_lines(prediction: Mapping[str, Any]) -> Iterator[str]:
    """Yield why the answer is what it is, and how firm it is."""
    answer = prediction["answer"]
    if answer is None or "refused" in answer:
        return
    shares = "; ".join(
        f"{words} from {_shares(answer['weights'][quantity])}"
        for quantity, words in (("n_params", "N_opt"), ("loss", "loss"))
    )
    yield f"why: {shares} (weights by noise and backtests)"
    methods = [method for method in prediction["methods"].values() if "refused" not in method]
    spans = ", ".join(
        f"{words} {format4(min(values))} to {format4(max(values))}"
        for key, words in (("n_params_opt", "N_opt"), ("loss_opt", "loss"))
        if (values := [method[key] for method in methods if key in method])
    )
    form = answer["form_sd"]
    yield (
        f"how firm: the methods span {spans}; form error {form['n_params']:.0%} in N_opt and "
        f"{form['loss']:.1%} in loss per e-fold of C"
    )


def _shares(weights: Mapping[str, float]) -> str:
    """Return the methods with at least a twentieth of the weight, heaviest first."""
    heaviest = sorted(weights.items(), key=lambda item: -item[1])
    shown = [item for item in heaviest if item[1] >= 0.05] or heaviest[:1]
    return ", ".join(f"{name} {weight:.0%}" for name, weight in shown)


def methods_table(prediction: Mapping[str, Any]) -> list[RenderableType]:
    """Return N_opt and loss of every method with its marks and their legend, and the refusals.

    A refusal that all methods have in common is given once, with its reason.
    """
    methods = prediction["methods"]
    refused = {name: method["refused"] for name, method in methods.items() if "refused" in method}
    parts: list[RenderableType] = []
    rows = {name: method for name, method in methods.items() if name not in refused}
    marks: set[str] = set()
    if rows:
        table = NarrowTable("method", "loss", "N_opt", "weights")
        for name, method in rows.items():
            table.add_row(*_row(name, method, prediction["answer"], marks))
        parts.append(table)
        parts += [Text(text) for mark, text in MARKS.items() if mark in marks]
    if len(refused) == len(methods) > 1 and len(set(refused.values())) == 1:
        answer = prediction["answer"] or {}
        if answer.get("refused") not in refused.values():  # else the sentence has said it
            parts.append(Text(f"every method is refused: {next(iter(refused.values()))}"))
    elif refused:
        parts.append(Text(f"refused: {', '.join(refused)} (--verbose gives the reasons)"))
    return parts


def _row(
    name: str, method: Mapping[str, Any], answer: Mapping[str, Any] | None, marks: set[str]
) -> Iterator[str]:
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
    weights = (answer or {}).get("weights", {})
    shares = [weights[quantity].get(name) for quantity in ("n_params", "loss") if quantity in weights]
    yield " / ".join("–" if share is None else f"{share:.0%}" for share in shares)


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


def backtest_line(backtest: Mapping[str, Any] | None, answer: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the errors of the weighted methods at the budgets that a fit without them had to predict."""
    if not backtest or answer is None or "weights" not in answer:
        return
    if "refused" in backtest:
        yield f"backtest: {backtest['refused']}"
        return
    parts = []
    for quantity, words in (("loss", "loss"), ("n_params", "N_opt")):
        errors = _mean_errors(backtest["methods"], answer["weights"][quantity], f"{quantity}_opt_error")
        if any(error is not None for error in errors):
            shown = ", ".join("–" if error is None else f"{error:+.1%}" for error in errors)
            parts.append(f"{words} {shown}")
    held = ", ".join(map(format4, backtest["left_out"]))
    if parts:
        yield f"backtest: fitted without {held} FLOPs, errors there: {'; '.join(parts)}"


def _mean_errors(methods: Mapping[str, Any], weights: Mapping[str, float], key: str) -> list[float | None]:
    """Return the weighted mean error at each budget held out; None where no method has one."""
    tested = {name: entry["budgets"] for name, entry in methods.items() if "budgets" in entry}
    n_budgets = max((len(budgets) for budgets in tested.values()), default=0)
    means: list[float | None] = []
    for index in range(n_budgets):
        known = [
            (weights[name], budgets[index][key])
            for name, budgets in tested.items()
            if name in weights and index < len(budgets) and budgets[index].get(key) is not None
        ]
        total = sum(weight for weight, _ in known)
        means.append(sum(weight * error for weight, error in known) / total if total else None)
    return means


def warnings_of(prediction: Mapping[str, Any]) -> list[str]:
    """Return the warnings of the answer, and those that all methods share, each once.

    Warnings of single methods are left to the marks of the table.
    """
    answer = prediction["answer"] or {}
    found = list(answer.get("warnings", ()))
    methods = [method for method in prediction["methods"].values() if "refused" not in method]
    every = [method.get("warnings", ()) for method in methods]
    if every:
        found += [warning for warning in every[0] if all(warning in others for others in every)]
    return list(dict.fromkeys(found))


def in_few_lines(
    before: Sequence[RenderableType], warnings: Iterable[str], after: Sequence[RenderableType]
) -> Group:
    """Return the parts with as many warnings as fit: at most MAX_WARNINGS, and MAX_LINES lines in all."""
    shown: list[RenderableType] = []
    every = list(warnings)
    for warning in every[:MAX_WARNINGS]:
        line = Text(f"warning: {warning}")
        if shown and _n_lines([*before, *shown, line, *after]) >= MAX_LINES:
            break
        shown.append(line)
    left = len(every) - len(shown)
    if left:
        shown.append(Text(f"{left} more warning{'s' if left > 1 else ''} with --verbose"))
    return Group(*before, *shown, *after)


def _n_lines(parts: Sequence[RenderableType]) -> int:
    console = Console(file=io.StringIO(), width=WIDTH)
    console.print(Group(*parts))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().count("\n")
