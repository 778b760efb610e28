"""Exponents of one family of models under the choices by which Kaplan's and Chinchilla's laws differ.

The choices are those by which Pearce & Song 2024 and Porian et al. 2024 explain the difference: counting of
N and C, an irreducible loss or none, one learning rate and batch or one for each run, and a schedule that
ends with each run or one that is read before its end.

Legend: N parameters, C training FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from matplotlib.figure import Figure

from scripts.evidence.curves import read_points
from scripts.evidence.markdown import interval, rows
from scripts.evidence.studies import FEW_DRAWS, STUDIES, grid_points
from sweep.fit import fit
from sweep.fit.checks.reconcile import ReconciledRow
from sweep.records import Point
from sweep.report.figures.style import DARK, GREY, new_figure, side_legend, style

KAPLAN, CHINCHILLA = 0.73, 0.50  # a of Kaplan et al. 2020, eq. 6.1; of Hoffmann et al. 2022, table 2
COLORS = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7")  # Okabe & Ito 2008
TOP = 1e11  # largest budget of the matched runs compared with one rate
READ_AT = (1.25e10, 1.77e10, 2.5e10, 3.54e10, 5e10)  # FLOPs
CHOICES = {
    ("isoflop", "none", "total", "exact"): "isoflop, all N",
    ("isoflop", "none", "non_embedding", "exact"): "isoflop, N without embeddings",
    ("parametric", "with", "total", "exact"): "surface, all N and C",
    ("parametric", "with", "non_embedding", "kaplan"): "surface, Kaplan's N and C",
    ("parametric", "without", "total", "exact"): "surface without E, all N and C",
    ("parametric", "without", "non_embedding", "kaplan"): "surface without E, Kaplan's N and C",
}
"""Methods with the countings of N and C that belong together: method, offset, N, C."""
ISOFLOP = replace(FEW_DRAWS, methods=("isoflop",))


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponents:
    """The exponents of N_opt from one set of runs, by the choices of method and counting."""

    runs: str
    a: dict[tuple[str, str, str, str], float]
    interval: tuple[float, float] | None  # of isoflop with all N; None where it refuses


@cache
def exponents() -> tuple[Exponents, ...]:
    """Return the exponents of every set of runs."""
    tuned = grid_points(STUDIES["cpu_stdlib"])
    few = [point for point in tuned if point.seed == 0 and (point.flops_budget or 0.0) <= TOP]
    return (
        _of_points("matched, tuned (50 runs to 2e11)", tuned),
        _of_points("matched, tuned (20 runs to 1e11)", few),
        _of_points("matched, one rate and batch (20 runs)", grid_points(STUDIES["fixed_lr"])),
        _of_points("one schedule, read in its first half (9 runs)", read_points(READ_AT, until=0.5)),
        _of_points("one schedule, read up to its end (9 runs)", read_points(READ_AT)),
    )


def _of_points(runs: str, points: Sequence[Point]) -> Exponents:
    fitted = fit(points, ISOFLOP, reconcile=True)
    assert fitted.reconcile is not None
    found = {_choice(row): row.a for row in fitted.reconcile.rows if row.a is not None}
    kept = {choice: found[choice] for choice in CHOICES if choice in found}
    law = fitted.laws.get("isoflop")
    return Exponents(runs=runs, a=kept, interval=None if law is None else law.ci["a"])


def _choice(row: ReconciledRow) -> tuple[str, str, str, str]:
    return row.method, row.offset, row.n_params, row.flops


def exponent_table() -> list[str]:
    """Return the exponent of N_opt under each set of choices."""
    body = []
    for one in exponents():
        ends = {choice: one.interval if choice == next(iter(CHOICES)) else None for choice in CHOICES}
        cells = [interval(one.a[choice], ends[choice], 2) if choice in one.a else "–" for choice in CHOICES]
        body.append([one.runs, *cells])
    return rows(["runs", *CHOICES.values()], body)


def exponent_figure() -> Figure:
    """Draw the exponent of N_opt under each set of choices, with the published ones as lines."""
    with style():
        figure, (axes,) = new_figure(width=9.4, height=3.4)
        for number, (one, color) in enumerate(zip(exponents(), COLORS, strict=True)):
            places = [list(CHOICES).index(choice) + 0.15 * (number - 2) for choice in one.a]
            if one.interval is not None:
                axes.plot(one.interval, [places[0]] * 2, color=color, lw=1.2)
            axes.plot(list(one.a.values()), places, "o", color=color, label=one.runs)
        for value, name in ((CHINCHILLA, "Chinchilla"), (KAPLAN, "Kaplan")):
            axes.axvline(value, color=GREY, lw=1, ls=":")
            axes.annotate(name, (value, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
        axes.set_yticks(range(len(CHOICES)), list(CHOICES.values()))
        axes.invert_yaxis()
        axes.set_xlabel("a of $N_{opt}\\propto C^a$, 90 % intervals")
        side_legend(axes, labelcolor=DARK)
        return figure
