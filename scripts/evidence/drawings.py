"""Figures of the reference experiments that are no sweep's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from scripts.evidence.batches import batch_figure
from scripts.evidence.counting import exponent_figure
from scripts.evidence.overtraining import overtraining_figure
from scripts.evidence.repetition import repetition_figure
from scripts.evidence.samples import sample_figure
from scripts.evidence.studies import REFERENCE, present
from sweep.report.figures.style import save_file

DRAWINGS: dict[str, tuple[str, Callable[[], Figure]]] = {
    "exponents": ("one_schedule", exponent_figure),
    "critical_batch": ("batches", batch_figure),
    "repetition": ("repetition", repetition_figure),
    "overtraining": ("cpu_stdlib", overtraining_figure),
    "sample_efficiency": ("one_schedule", sample_figure),
}
"""Figures by name, each with the study that it needs."""


def draw_all(directory: Path = REFERENCE) -> list[Path]:
    """Draw the figures with a study as PNG and return their paths."""
    existing = {study.name for study in present()}
    return [
        save_file(draw(), directory / f"{name}.png")
        for name, (needs, draw) in DRAWINGS.items()
        if needs in existing
    ]
