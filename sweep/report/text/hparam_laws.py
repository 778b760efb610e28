"""Laws of learning rate and batch as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sweep.fit.hparam_laws import NEAR_BEST, HparamLaw, HparamLaws
from sweep.report.numbers import NarrowTable, format4

MAX_CELLS = 6
NAMES = {"lr": "learning rate", "batch": "batch"}


def hparam_laws_text(found: HparamLaws, closing: Sequence[str] = ()) -> RenderableType:
    """Return the laws with their intervals, the cells that are not used, and the rules to set."""
    lines = [line for law in found.laws.values() for line in _law(law, found.confidence)]
    lines += [f"no law of the {NAMES[axis]}: {reason}" for axis, reason in found.refused.items()]
    left_out = [cell for cell in found.cells if cell.reason is not None]
    lines += [f"not used, {cell.name}: {cell.reason}" for cell in left_out[:MAX_CELLS]]
    if len(left_out) > MAX_CELLS:
        lines.append(f"not used: {len(left_out) - MAX_CELLS} more cells")
    rules = [f"rule: {key}='{rule}'" for key, rule in found.rules.items()]
    return Group(_cells(found), *map(Text, (*lines, *rules, *closing)))


def _cells(found: HparamLaws) -> NarrowTable:
    axes = list(found.laws)
    best, by_law = ([f"{word} {NAMES[axis]}" for axis in axes] for word in ("best", "law's"))
    table = NarrowTable("N", "D", "runs", *best, *by_law)
    for cell in [one for one in found.cells if one.reason is None][:MAX_CELLS]:
        table.add_row(
            format4(cell.n_params),
            format4(cell.n_tokens),
            str(cell.n_runs),
            *(format4(cell.optimum[axis]) if axis in cell.optimum else "" for axis in axes),
            *(format4(found.laws[axis].at(cell.n_params, cell.n_tokens)) for axis in axes),
        )
    return table


def _law(law: HparamLaw, confidence: float) -> Iterator[str]:
    terms = [("N", law.n_exponent), ("D", law.d_exponent)]
    shown = ", ".join(f"{name}^{one:.3g}" for name, one in terms if one is not None)
    yield (
        f"{NAMES[law.axis]}: {shown or 'constant'} ({confidence:.0%}), {law.n_cells} cells, scatter "
        f"{law.scatter:.1%} about the law"
    )
    if law.near_best is not None:
        near = ", ".join(f"{value:.3g}" for value in law.near_best)
        yield f"  through all runs within {NEAR_BEST:.2%} of the best (Li et al. 2025): {near}"
    for note in law.notes:
        yield f"  {note}"
