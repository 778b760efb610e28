"""A comparison of two arms as text of at most 15 lines."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from sweep.fit.compare.arms import SAME_BUDGET
from sweep.fit.compare.comparison import Comparison, Crossing, MultiplierAt
from sweep.report.numbers import NarrowTable, format4

MAX_ROWS = 6  # of budgets, the target included
MAX_NOTES = 2


def comparison_text(found: Comparison, closing: str | None = None) -> RenderableType:
    """Return the multipliers by budget, the exponents, the crossing, and the next command.

    `closing` is a line before the next command.
    """
    lines = [*_shown_notes(found), *([] if closing is None else [closing])]
    if found.next is not None:
        lines.append(f"next: {found.next}")
    return Group(*map(Text, _heading(found)), _table(found), *map(Text, (*conclusions(found), *lines)))


def _heading(found: Comparison) -> Iterator[str]:
    a, b = found.a, found.b
    yield f"B = {b.name} over A = {a.name}: {compared_runs(found)}"
    yield multiplier_sentence(found.target)


def compared_runs(found: Comparison) -> str:
    """Return the runs of B and A, their matching pairs, and the level of the intervals."""
    pairs = f"{found.n_pairs} matching pairs (noise correlation {found.correlation:.2f})"
    return (
        f"{found.b.n_points} and {found.a.n_points} runs, {pairs if found.n_pairs else 'no matching runs'}, "
        f"{found.confidence:.0%} intervals"
    )


def multiplier_sentence(at: MultiplierAt, a: str = "A", b: str = "B") -> str:
    """Return the compute multiplier at a budget, with its interval and the probability that B is better."""
    low, high = at.flops_factor.interval
    shown = "holds 1: no difference shown" if low <= 1 <= high else "excludes 1"
    return (
        f"at {format4(at.flops)} FLOPs {a} needs {at.flops_factor:.3g} times the compute of {b} for "
        f"equal loss; P({b} better) {_probability(at.p_b_better)}; the interval {shown}"
    )


def _table(found: Comparison) -> NarrowTable:
    has_tokens, has_seconds = found.target.tokens_factor is not None, found.device is not None
    names = ("FLOPs of B", "loss A", "loss B", "A/B FLOPs", "P(B better)")
    table = NarrowTable(*names, *(["A/B tokens"] * has_tokens), *(["A/B seconds"] * has_seconds))
    for at in _rows(found):
        more = [f"{factor:.3g}" for factor in (at.tokens_factor, at.seconds_factor) if factor is not None]
        table.add_row(
            f"{format4(float(f'{at.flops:.3g}'))}{'*' if at.extrapolated else ''}",
            format4(at.loss_a),
            format4(at.loss_b),
            f"{at.flops_factor:.3g}",
            _probability(at.p_b_better),
            *more,
        )
    return table


def _rows(found: Comparison) -> list[MultiplierAt]:
    """Return the target and as many other budgets as fit, the smallest and largest among them, ascending."""
    others = [at for at in found.at if abs(math.log(at.flops / found.target.flops)) > SAME_BUDGET]
    n, room = len(others), MAX_ROWS - 1
    if n > room:
        others = [others[at] for at in sorted({round(step * (n - 1) / (room - 1)) for step in range(room)})]
    return sorted([*others, found.target], key=lambda at: at.flops)


def conclusions(found: Comparison) -> Iterator[str]:
    """Yield the test of the exponents, and the crossing."""
    exponents = found.exponents
    verdict = (
        f"differ: gamma {format4(exponents.gamma_a)} for A, {format4(exponents.gamma_b)} for B"
        if exponents.preferred == "separate"
        else "no difference shown, shared exponents preferred"
    )
    yield (
        f"exponents: {verdict} (F = {exponents.f:.2f} with 1 and {exponents.n_dof} dof, p "
        f"{_p_value(exponents.p_value)}; B/A {exponents.ratio:.3g})"
    )
    yield f"{_crossing(found.crossing)}; * extrapolated: outside the budgets of B, or of A at B's loss"


def _crossing(crossing: Crossing) -> str:
    low, high = map(format4, (float(f"{end:.2g}") for end in crossing.range))
    if crossing.flops is None:
        chance = _probability(crossing.p_crossing)
        return f"estimates do not cross within {low} to {high} FLOPs (probability of a crossing {chance})"
    assert crossing.interval is not None
    first, last = crossing.interval
    if first is None and last is None:
        return f"crossing not determined: the interval holds 1 from {low} to {high} FLOPs"
    ends = [
        f"below {low}" if first is None else format4(first),
        f"above {high}" if last is None else format4(last),
    ]
    return f"equally good at {format4(crossing.flops)} FLOPs [{ends[0]}, {ends[1]}]"


def comparison_notes(found: Comparison) -> list[str]:
    """Return warnings, and the runs that are not compared."""
    notes = [*found.warnings, *([] if found.no_seconds is None else [found.no_seconds])]
    for arm in (found.a, found.b):
        if arm.n_diverged:
            notes.append(f"{arm.n_diverged} runs of {arm.name} diverged and are not compared")
        if arm.outliers:
            notes.append(f"outliers left out of {arm.name}: {', '.join(arm.outliers)}")
        notes += [f"{arm.name}: {warning}" for warning in arm.warnings]
    return notes


def _shown_notes(found: Comparison) -> list[str]:
    notes = comparison_notes(found)
    more = len(notes) - MAX_NOTES
    shown = notes if more <= 0 else [*notes[: MAX_NOTES - 1], f"{more + 1} more notes in --json"]
    return [f"note: {note}" for note in shown]


def _p_value(value: float) -> str:
    return f"= {value:.2g}" if value >= 0.001 else "< 0.001"


def _probability(share: float) -> str:
    if share < 0.001:
        return "<0.1%"
    return ">99.9%" if share > 0.999 else f"{share:.1%}"
