"""Agreement of the methods at and beyond the largest budget.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from sweep.fit.laws.base import QUANTITIES, REACHES, WORDS, Interval, Law, Quantity

COMPARED: tuple[Quantity, ...] = ("n_params_opt", "loss_opt")


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodOptimum:
    """One method's optimum at one budget."""

    n_params_opt: float
    n_tokens_opt: float
    tokens_per_param_opt: float
    loss_opt: float
    ci: Mapping[Quantity, Interval]  # empty without draws
    unproved: tuple[Quantity, ...]  # quantities with intervals of unproved coverage


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementRow:
    """The optimum of every method at one budget."""

    reach: int  # the budget over the largest fitted one
    flops: float
    methods: Mapping[str, MethodOptimum]


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """The methods at 1, 10 and 100 times the largest budget: the entry `agreement` of fit.json."""

    rows: tuple[AgreementRow, ...]
    disagreements: tuple[str, ...]  # one sentence each
    agree: bool


def agreement(laws: Mapping[str, Law], largest_flops: float) -> Agreement:
    """Compare the laws; two of them disagree where their intervals do not overlap.

    A law without intervals, or with an interval of unproved coverage, does not take part in the comparison.
    """
    rows = tuple(
        AgreementRow(
            reach=reach,
            flops=reach * largest_flops,
            methods={name: _optimum(law, reach * largest_flops) for name, law in laws.items()},
        )
        for reach in REACHES
    )
    sentences = tuple(sentence for row in rows for sentence in _contradictions(row))
    return Agreement(rows=rows, disagreements=sentences, agree=not sentences)


def _optimum(law: Law, flops: float) -> MethodOptimum:
    intervals = {quantity: law.interval(quantity, flops) for quantity in QUANTITIES}
    return MethodOptimum(
        **{str(quantity): law.estimate(quantity, flops) for quantity in QUANTITIES},
        ci={quantity: pair for quantity, pair in intervals.items() if pair is not None},
        unproved=law.unproved,
    )


def _contradictions(row: AgreementRow) -> list[str]:
    sentences = []
    for quantity in COMPARED:
        for (one, first), (other, second) in combinations(row.methods.items(), 2):
            a, b = first.ci.get(quantity), second.ci.get(quantity)
            if a is None or b is None or not _disjoint(a, b):
                continue
            if quantity in first.unproved or quantity in second.unproved:
                continue
            sentences.append(
                f"at {row.reach} times the largest budget {one} and {other} disagree on {WORDS[quantity]} "
                f"by more than their intervals: {getattr(first, quantity):.4g} [{a[0]:.4g}, {a[1]:.4g}] "
                f"against {getattr(second, quantity):.4g} [{b[0]:.4g}, {b[1]:.4g}]"
            )
    return sentences


def _disjoint(a: Interval, b: Interval) -> bool:
    return all(math.isfinite(end) for end in (*a, *b)) and (a[1] < b[0] or b[1] < a[0])
