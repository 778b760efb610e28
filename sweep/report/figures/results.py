"""The results of a sweep that figures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweep.fit.fit import Fit
from sweep.fit.table.observations import Observations, observe
from sweep.records import CurvePoint, Point
from sweep.report.hparams import HparamReport
from sweep.store.validations import Validation


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SweepResults:
    """One sweep, or one of its arms: the input of every figure."""

    fit: Fit
    points: Sequence[Point]
    curves: Mapping[str, Sequence[CurvePoint]] = field(default_factory=dict)  # training curves by run key
    validations: Sequence[Validation] = ()  # finished ones
    hparams: HparamReport | None = None  # None if hyperparameters were not checked

    @property
    def excluded(self) -> dict[str, str]:
        """Reasons by run key of the points that were not fitted."""
        return {point.run_key: point.reason for point in self.fit.excluded}

    def observations(self) -> Observations:
        """Return the fitted points as arrays."""
        return observe(self.points, self.excluded)
