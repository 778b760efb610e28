"""What the methods say side by side, at and beyond the largest budget, and where they contradict each other.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from sweep.fit.laws.base import QUANTITIES, REACHES, WORDS, Interval, Law, Quantity

COMPARED: tuple[Quantity, ...] = ("n_params_opt", "loss_opt")


def agreement(laws: Mapping[str, Law], largest_flops: float) -> dict[str, Any]:
    """The `agreement` entry of fit.json: a row for each reach, and a sentence for each contradiction.

    Two methods disagree where their intervals do not meet; without intervals, or where an interval's coverage
    is unproved, nothing is said.
    """
    rows = [
        {
            "reach": reach,
            "flops": reach * largest_flops,
            "methods": {name: _answer(law, reach * largest_flops) for name, law in laws.items()},
        }
        for reach in REACHES
    ]
    sentences = [sentence for row in rows for sentence in _contradictions(row)]
    return {"rows": rows, "disagreements": sentences, "agree": not sentences}


def _answer(law: Law, flops: float) -> dict[str, Any]:
    intervals = {quantity: law.interval(quantity, flops) for quantity in QUANTITIES}
    return {
        **{quantity: law.estimate(quantity, flops) for quantity in QUANTITIES},
        "ci": {quantity: list(pair) for quantity, pair in intervals.items() if pair is not None},
        "unproved": list(law.unproved),
    }


def _contradictions(row: Mapping[str, Any]) -> list[str]:
    sentences = []
    for quantity in COMPARED:
        for (one, first), (other, second) in combinations(row["methods"].items(), 2):
            a, b = first["ci"].get(quantity), second["ci"].get(quantity)
            if a is None or b is None or not _apart(a, b):
                continue
            if quantity in first["unproved"] or quantity in second["unproved"]:
                continue
            sentences.append(
                f"at {row['reach']} times the largest budget {one} and {other} disagree on {WORDS[quantity]} "
                f"by more than their intervals: {first[quantity]:.4g} [{a[0]:.4g}, {a[1]:.4g}] against "
                f"{second[quantity]:.4g} [{b[0]:.4g}, {b[1]:.4g}]"
            )
    return sentences


def _apart(a: Interval, b: Interval) -> bool:
    return all(math.isfinite(end) for end in (*a, *b)) and (a[1] < b[0] or b[1] < a[0])
