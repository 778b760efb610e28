"""Numbers and units as people write them: 1.2B, 3×10^18, 4,428 with a decimal comma, 5 PF-days."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

SCALES = {
    1e3: "k thousand thousands",
    1e6: "m mn mio million millions",
    1e9: "b bn g mrd billion billions",
    1e12: "t tn trillion trillions",
}
WORDS = {word: factor for factor, words in SCALES.items() for word in words.split()}
SCALE_NAMES = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}
PREFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24}
PREFIXES |= {"kilo": 1e3, "mega": 1e6, "giga": 1e9, "tera": 1e12, "peta": 1e15, "exa": 1e18, "zetta": 1e21}
SECONDS_PER_DAY = 86_400
PF_DAY = 1e15 * SECONDS_PER_DAY
FLOP_UNITS = {
    1.0: "FLOPs",
    **{factor: f"{prefix.upper()}FLOPs" for prefix, factor in PREFIXES.items() if len(prefix) == 1},
    PF_DAY: "PF-days",
}
NOUNS = {
    "n_params": "params parameters param parameter",
    "n_params_non_embedding": "params parameters param parameter",
    "n_tokens": "tokens token",
    "n_tokens_unique": "tokens token",
    "flops": "flops flop",
    "flops_budget": "flops flop",
    "loss": "per token",
}
LOSS_UNITS = {"nats": 1.0, "nat": 1.0, "bits": math.log(2), "bit": math.log(2)}
BLANKS = str.maketrans(dict.fromkeys("\u00a0\u2007\u2009\u202f\ufeff", " "))  # no-break and thin spaces
MISSING = frozenset({"", "nan", "none", "null", "<na>", "na", "n/a", "#n/a", "-", "–", "—"})
"""Text of a missing value; pandas' own is <na>."""

_FLOPS = re.compile(rf"({'|'.join(PREFIXES)})(?:f|flops?)")
_FLOP_DAYS = re.compile(r"(t|p|e|tera|peta|exa)[- ]?f(?:lops?)?(?:/?s)?[- ]?days?")
_POWER = re.compile(r"(?:[x×*·]\s*)?(?:10\s*(?:\^|\*\*)\s*|1e\+?)(\d{1,2})")
_CELL = re.compile(r"([+-]?\d[\d.,]*(?:e[+-]?\d+)?)\s*(.*)", re.DOTALL)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d*)?")
_SPACED = re.compile(r"(?<=\d)[ '’](?=\d{3}(?!\d))")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:0|\d{4,}|\d{1,3}(?=,(?!\d{3}(?!\d)))|\d{1,3}(?:\.\d{3})+),\d*")
_TYPED = str.maketrans("−⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def unit_factor(text: str, field: str) -> float | None:
    """Return the factor of a unit of `field`, as "M", "billions", "PF-days" or "1e18"; None if unknown."""
    words = [word for word in text.lower().split() if word not in ("in", "x", "×")]
    words = [word for word in words if word not in NOUNS.get(field, "").split()] if len(words) > 1 else words
    unit = " ".join(words).strip()
    if unit in NOUNS.get(field, "").split():
        return 1.0
    if field == "loss":
        return LOSS_UNITS.get(unit.replace("/token", "").strip())
    power = _POWER.fullmatch(unit)
    if power:
        return 10.0 ** int(power[1])
    if field.startswith("flops"):
        days, prefixed = _FLOP_DAYS.fullmatch(unit), _FLOPS.fullmatch(unit)
        if days or prefixed:
            prefix, factor = ((days or prefixed)[1], SECONDS_PER_DAY if days else 1)  # type: ignore[index]
            return PREFIXES[prefix] * factor
    return WORDS.get(unit)


def unit_name(factor: float, field: str) -> str:
    """Return the name of a unit, such as millions, PF-days, bits, or units of 1e+08."""
    if field == "loss" and factor == LOSS_UNITS["bits"]:
        return "bits"
    names = FLOP_UNITS if field.startswith("flops") else SCALE_NAMES
    return names.get(factor, f"units of {factor:g}")


def is_missing(value: Any) -> bool:
    """Return true for an empty cell and for the usual texts of a missing value."""
    return value is None or str(value).strip().lower() in MISSING


def number(value: Any, decimal: str = ".", field: str = "", factor: float = 1.0) -> float | None:
    """Return a cell as a number, None if it is none.

    `decimal` is the column's decimal mark, `factor` the value of its unit; a unit in the cell itself, as in
    125M, replaces that of the column.
    """
    if not isinstance(value, str):
        if isinstance(value, (bool, np.bool_)):  # float(True) is 1.0
            return None
        try:
            return float(value) * factor
        except (TypeError, ValueError):
            return None
    if decimal == ".":
        try:
            return float(value) * factor
        except ValueError:
            pass
    text = _SPACED.sub("", value.translate(BLANKS).translate(_TYPED).strip().lower())
    if text.startswith(("10^", "10**")):
        text = f"1 {text}"
    match = _CELL.fullmatch(text)
    plain = _plain(match[1], decimal) if match else None
    if match is None or plain is None:
        return None
    own = unit_factor(match[2], field) if match[2] else factor
    return None if own is None else plain * own


def _plain(digits: str, decimal: str) -> float | None:
    """Return digits with marks as a number, None where marks of thousands do not part groups of three."""
    if decimal == ",":
        digits = digits.translate(str.maketrans(".,", ",."))
    if digits.count(".") > 1 and "," not in digits:
        digits = digits.translate(str.maketrans(".", ","))
    if "," in digits:
        if not _GROUPED.fullmatch(digits):
            if (
                decimal == "," and digits.count(",") == 1
            ):  # 1.5e9 amid decimal commas: thousands come in threes
                digits = digits.replace(",", ".")
            else:
                return None
        digits = digits.replace(",", "")
    try:
        return float(digits)
    except ValueError:
        return None


def decimal_mark(values: Iterable[Any]) -> str | None:
    """Return the decimal mark that a column's cells show, a comma or a dot; None if they fit both."""
    texts = [match[1] for value in values if isinstance(value, str) and (match := _CELL.match(value.lower()))]
    if any(_DECIMAL_COMMA.fullmatch(text.partition("e")[0]) for text in texts):
        return ","
    return "." if any("." in text and not re.search(r"\.\d{3}(?!\d)", text) for text in texts) else None
