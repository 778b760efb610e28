"""Figures of the reference experiments that are no sweep's own: exponents by choice, and critical batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from scripts.evidence.batches import BatchCell, NoisePoint, batch_cells, noise_points
from scripts.evidence.counting import TUNED, Exponent, exponents
from scripts.evidence.studies import REFERENCE
from sweep.report.figures.style import DARK, GREY, count_ticks, loss_ticks, new_figure, save_figure, style

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
    """Return the choices in words; runs of matched schedules and tuned rates are the default."""
    counted = "N without embeddings" if one.n_params == "non_embedding" else "all N"
    convention = "Kaplan's C" if one.flops == "kaplan" else "exact C"
    runs = "" if one.runs == TUNED else f"{one.runs}: "
    return f"{runs}{one.method}, {counted}, {convention}"


def batch_figure(noise: Sequence[NoisePoint], cells: Sequence[BatchCell]) -> Figure:
    """Draw the noise scale against the loss, and the loss against the batch at two cells."""
    with style():
        figure, (left, right) = new_figure(width=9.0, height=3.6, n_panels=2)
        left.plot([one.loss for one in noise], [one.noise_scale for one in noise], "o", color=BLUE, ms=4)
        left.plot([one.loss for one in noise], [one.batch for one in noise], ".", color=GREY, ms=4)
        left.plot(
            [cell.loss.min() for cell in cells], [cell.critical for cell in cells], "D", color=ORANGE, ms=6
        )
        left.set_xscale("log")
        left.set_yscale("log")
        left.invert_xaxis()
        loss_ticks(left.xaxis)
        count_ticks(left.yaxis)
        left.set_xlabel("held-out loss (nats per token)")
        left.set_ylabel("tokens")
        left.set_title(
            "noise scale (circles), batch trained at (dots),\ncritical by sweep (diamonds)", loc="left"
        )
        for cell, color in zip(cells, (BLUE, ORANGE), strict=False):
            right.plot(cell.batch, cell.loss - cell.loss.min(), "o-", color=color, label=cell.name)
            right.axvline(cell.noise_scale, color=color, lw=1, ls=":")
        right.set_xscale("log")
        count_ticks(right.xaxis)
        right.set_ylim(-0.005, 0.3)
        right.set_xlabel("tokens per step, at equal tokens")
        right.set_title("loss over the best; dotted: noise scale", loc="left")
        right.legend(labelcolor=DARK)
        return figure


def draw_all(directory: Path = REFERENCE) -> list[Path]:
    """Draw both figures as PNG, as far as their points exist, and return the paths."""
    paths = []
    found = list(exponents())
    if found:
        paths += save_figure(exponent_figure(found), directory / "exponents")
    noise, cells = noise_points(), batch_cells()
    if noise and cells:
        paths += save_figure(batch_figure(noise, cells), directory / "critical_batch")
    for path in paths:
        if path.suffix == ".svg":
            path.unlink()
    return [path for path in paths if path.suffix == ".png"]
