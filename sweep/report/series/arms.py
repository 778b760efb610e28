"""The arms of a sweep over compute, overlaid: optimal size and loss of each arm's answer.

Legend: N parameters, C training FLOPs, L loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweep.fit.laws.base import Quantity
from sweep.report.results import SweepResults
from sweep.report.series.optima import OptimumCurve, OptimumMarks, loss_panels, optimum_panels


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ArmCurve:
    """One arm's law for a quantity: that of its answer, or of its first method."""

    arm: str
    quantity: Quantity
    curve: OptimumCurve
    marks: OptimumMarks | None  # minima of its IsoFLOP curves


def arm_curves(arms: Mapping[str, SweepResults]) -> tuple[ArmCurve, ...]:
    """Return the laws of every arm that has one; empty for fewer than two."""
    found = []
    for arm, results in arms.items():
        for panel in (*optimum_panels(results)[:1], *loss_panels(results)):
            law = panel.curves[0]
            found.append(ArmCurve(arm=arm, quantity=panel.quantity, curve=law, marks=panel.marks))
    return tuple(found) if len({one.arm for one in found}) > 1 else ()
