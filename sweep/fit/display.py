"""A fit as ten lines of text and as an HTML table, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

ROWS = ("a", "b", "E", "alpha", "beta")
TEXT_COLUMNS = ("a", "b", "E")
WIDTH = 100  # characters of a line of text
CELL = 27


def fit_text(document: Mapping[str, Any], answer: Mapping[str, str]) -> str:
    """Return a fit.json document as text: points, answer, and each method's constants with intervals.

    `answer` holds the answer's constants by name, or its refusal under "refused".
    """
    points = document["points"]
    flops_range = points["flops_range"]
    span = "" if flops_range is None else f", {flops_range[0]:.3g} to {flops_range[1]:.3g} FLOPs"
    lines = [f"Fit of {points['n']} points{span}, {len(points['excluded'])} excluded"]
    lines.append(_line("", dict(zip(TEXT_COLUMNS, TEXT_COLUMNS, strict=True))))
    if answer:
        lines.append(_line("answer", answer))
    lines += [
        _line(_label(name, entry), _cells(entry, TEXT_COLUMNS)) for name, entry in document["methods"].items()
    ]
    return "\n".join(lines)


def _label(name: str, entry: Mapping[str, Any]) -> str:
    """Return the name of a method, with the counting of N where its exponents are not of total parameters."""
    return f"{name} non-embed." if entry.get("counting") == "non_embedding" else name


def _line(name: str, cells: Mapping[str, str]) -> str:
    if "refused" in cells:
        line = f"{name:<18}refused: {cells['refused']}"
        return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
    shown = "".join(cells.get(symbol, "").ljust(CELL) for symbol in TEXT_COLUMNS)
    return f"{name:<18}{shown}".rstrip()


def fit_html(document: Mapping[str, Any], answer: Mapping[str, str]) -> str:
    """Return HTML of a fit.json document: constants with intervals, refusals, disagreements; all escaped.

    `answer` is that of `fit_text`.
    """
    head = "".join(f"<th>{cell}</th>" for cell in ("method", *ROWS, "status"))
    rows = [_row(_label(name, entry), entry) for name, entry in document["methods"].items()]
    points = document["points"]
    notes = [f"{points['n']} points fitted, {len(points['excluded'])} excluded"]
    notes += [f"answer: {', '.join(f'{name} = {value}' for name, value in answer.items())}"] if answer else []
    notes += (document["agreement"] or {}).get("disagreements", [])
    backtest = document["backtest"]
    if "refused" in backtest:
        notes.append(f"backtest: refused: {backtest['refused']}")
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table><ul>{listed}</ul>"


def _row(name: str, entry: Mapping[str, Any]) -> str:
    cells = _cells(entry, ROWS)
    if "refused" in cells:
        shown = [""] * len(ROWS) + [f"refused: {cells['refused']}"]
    else:
        shown = [cells.get(symbol, "") for symbol in ROWS] + ["; ".join(entry["warnings"]) or "ok"]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (name, *shown)) + "</tr>"


def _cells(entry: Mapping[str, Any], symbols: Sequence[str]) -> dict[str, str]:
    """Return the constants of a method as text by symbol, or the reason of its refusal under "refused"."""
    if "refused" in entry:
        return {"refused": entry["refused"]}
    return {symbol: _number(entry, symbol) for symbol in symbols if symbol in entry}


def _number(entry: Mapping[str, Any], symbol: str) -> str:
    interval = entry["ci"].get(symbol)
    estimate = f"{entry[symbol]:.4g}"
    if interval is None:
        return estimate
    doubt = " ?" if symbol in entry.get("unproved", ()) else ""
    return f"{estimate} [{interval[0]:.4g}, {interval[1]:.4g}]{doubt}"
