"""Figure of the exponents by counting, which is no sweep's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from scripts.evidence.counting import Exponent, exponents
from scripts.evidence.studies import REFERENCE
from sweep.report.figures.style import GREY, new_figure, save_figure, style

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe & Ito 2008
KAPLAN, CHINCHILLA = 0.73, 0.50  # a of Kaplan et al. 2020, eq. 6.1; of Hoffmann et al. 2022, table 2


def exponent_figure(found: Sequence[Exponent]) -> Figure:
    """Draw the exponent of N_opt under each set of choices, with the published ones as lines."""
    with style():
        figure, (axes,) = new_figure(width=8.2, height=0.28 * len(found) + 1.2)
        for row, one in enumerate(found):
            color = ORANGE if one.n_params == "non_embedding" else BLUE
            if one.interval is not None:
                axes.plot(one.interval, [row, row], color=color, lw=1.2)
            axes.plot(one.a, row, "o", color=color, mfc="white" if one.flops == "kaplan" else color)
        for value, name in ((CHINCHILLA, "Chinchilla"), (KAPLAN, "Kaplan")):
            axes.axvline(value, color=GREY, lw=1, ls=":")
            axes.annotate(name, (value, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
        axes.set_yticks(range(len(found)), [label(one) for one in found])
        axes.invert_yaxis()
        axes.set_xlabel("a of $N_{opt}\\propto C^a$, 90 % intervals")
        return figure


def label(one: Exponent) -> str:
    """Return the choices in words."""
    counted = "N without embeddings" if one.n_params == "non_embedding" else "all N"
    convention = "Kaplan's C" if one.flops == "kaplan" else "exact C"
    return f"{one.method}, {counted}, {convention}"


def draw_all(directory: Path = REFERENCE) -> list[Path]:
    """Draw the figure as PNG and return its path."""
    png, svg = save_figure(exponent_figure(list(exponents())), directory / "exponents")
    svg.unlink()
    return [png]
