"""HTML table of a fit, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

ROWS = ("a", "b", "E", "alpha", "beta")


def fit_html(document: Mapping[str, Any]) -> str:
    """Return HTML of a fit.json document: constants with intervals, refusals, disagreements; all escaped."""
    head = "".join(f"<th>{cell}</th>" for cell in ("method", *ROWS, "status"))
    body = "".join(_row(name, entry) for name, entry in document["methods"].items())
    points = document["points"]
    notes = [f"{points['n']} points fitted, {len(points['excluded'])} excluded"]
    notes += (document["agreement"] or {}).get("disagreements", [])
    backtest = document["backtest"]
    if "refused" in backtest:
        notes.append(f"backtest: refused: {backtest['refused']}")
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{listed}</ul>"


def _row(name: str, entry: Mapping[str, Any]) -> str:
    if "refused" in entry:
        cells = [""] * len(ROWS) + [f"refused: {entry['refused']}"]
    else:
        cells = [_number(entry, symbol) for symbol in ROWS] + ["; ".join(entry["warnings"]) or "ok"]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (name, *cells)) + "</tr>"


def _number(entry: Mapping[str, Any], symbol: str) -> str:
    if symbol not in entry:
        return ""
    interval = entry["ci"].get(symbol)
    estimate = f"{entry[symbol]:.4g}"
    if interval is None:
        return estimate
    doubt = " ?" if symbol in entry.get("unproved", ()) else ""
    return f"{estimate} [{interval[0]:.4g}, {interval[1]:.4g}]{doubt}"
