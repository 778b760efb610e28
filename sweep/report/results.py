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


def caption(results: SweepResults) -> str:
    """Return what figures are drawn from: corpus, tokenizer, runs, seeds, and the level of intervals.

    The parts that the points do not have are left out.
    """
    fit, points = results.fit, [point for point in results.points if point.purpose is None]
    parts = []
    corpora = {point.corpus for point in points if point.corpus}
    if len(corpora) == 1:
        tokenizers = {point.tokenizer for point in points if point.tokenizer}
        parts.append(", ".join([f"corpus {corpora.pop()}", *(f"tokenizer {t}" for t in sorted(tokenizers))]))
    parts.append(f"{fit.n_points} of {len(points)} runs fitted")
    seeds = {point.seed for point in points if point.seed is not None}
    if seeds:
        parts.append(f"{len(seeds)} seed{'s' * (len(seeds) > 1)}")
    level = _confidence(fit)
    if level is not None:
        parts.append(f"{level:.0%} intervals")
    return "; ".join(parts)


def _confidence(fit: Fit) -> float | None:
    levels = {law.confidence for law in fit.laws.values() if law.n_draws}
    return levels.pop() if len(levels) == 1 else None
