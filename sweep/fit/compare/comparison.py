"""The comparison of two arms: multipliers at every budget and at a target, and the tests on them.

Legend: C training FLOPs, L loss at the optimum of C, N parameters, D tokens, T training seconds, k the
multiplier: L_A(k C) = L_B(C).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.compare.arms import SAME_BUDGET, Arm, ArmMinima, PairedMinima, arm_minima, pair
from sweep.fit.compare.comparable import UNITS, Measure, common_measure, in_measure
from sweep.fit.compare.multiplier import JointCurves, JointFit, crossing, crossing_share, fit_jointly
from sweep.fit.compare.seconds import TrainingTime, training_times
from sweep.fit.laws.base import BoundedEstimate, Interval, percentiles
from sweep.fit.laws.encoding import to_plain
from sweep.fit.refusals import RefusedError

FloatArray = npt.NDArray[np.float64]

SCHEMA_VERSION = 1
TARGET_REACH = 10.0  # times the largest budget that both arms have: the target by default
SIGNIFICANT = 0.05  # p value below which the exponents count as different
NEAR = 0.1  # in ln C: nearer to the budgets than this, nothing is extrapolated
N_CURVE = 41  # budgets of the curves
MIN_DRAWS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiplierAt:
    """The arms compared at the loss that B reaches with a budget."""

    flops: float  # of B
    extrapolated: bool  # outside the budgets of B, or k times it outside those of A
    loss_a: float  # at `flops`, in the unit of the comparison
    loss_b: float
    flops_factor: BoundedEstimate
    tokens_factor: BoundedEstimate | None  # None with different tokenizers
    seconds_factor: BoundedEstimate | None  # None where `Comparison.no_seconds` says why
    p_b_better: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponents:
    """Exponents gamma of L = E + K C^-gamma, and the test of one for both arms against one for each."""

    gamma_a: float
    gamma_b: float
    ratio: BoundedEstimate  # gamma_b / gamma_a, with the prior of `sweep.fit.compare.multiplier`
    preferred: Literal["shared", "separate"]
    ratio_without_prior: float
    f: float  # with 1 and `n_dof` degrees of freedom
    n_dof: int
    p_value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """The budget at which both arms are equally good, within the budgets considered."""

    range: Interval  # the budgets considered
    flops: float | None  # None: no crossing within the range
    interval: tuple[float | None, float | None] | None  # budgets with 1 in k's interval; None: open
    p_crossing: float  # probability of a crossing within the range


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmSummary:
    """The runs of an arm that were compared."""

    name: str
    n_points: int
    n_diverged: int
    budgets: tuple[float, ...]  # with a valid minimum
    outliers: tuple[str, ...]  # labels of runs left out
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curves:
    """Both loss curves and the multiplier over the budgets considered, with confidence limits (2, m)."""

    flops: FloatArray  # (m,)
    loss_a: FloatArray  # (m,)
    loss_b: FloatArray
    loss_a_band: FloatArray
    loss_b_band: FloatArray
    multiplier: FloatArray
    multiplier_band: FloatArray
    minima_a: FloatArray  # (2, ma): budgets and losses
    minima_b: FloatArray
    multiplier_at_minima: FloatArray  # (mb,): budgets of A's curve with the losses of B's minima, over B's


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """Arm B compared with arm A."""

    a: ArmSummary
    b: ArmSummary
    measure: Measure
    confidence: float
    n_pairs: int  # runs with a match of equal budget, size and seed in the other arm
    correlation: float  # of the noise of matching runs
    at: tuple[MultiplierAt, ...]  # every budget of an arm, ascending
    target: MultiplierAt
    crossing: Crossing
    exponents: Exponents
    device: str | None  # of the seconds
    no_seconds: str | None  # reason why no seconds are compared
    warnings: tuple[str, ...]
    curves: Curves
    next: str | None = None  # a command that tests the comparison

    @property
    def unit(self) -> str:
        """Unit of the losses."""
        return UNITS[self.measure]

    @property
    def at_largest(self) -> MultiplierAt:
        """The comparison at the largest budget that both arms have."""
        largest = min(max(self.a.budgets), max(self.b.budgets)) * math.exp(SAME_BUDGET)
        return max((at for at in self.at if at.flops <= largest), key=lambda at: at.flops)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON types, with the curves of its figure; null is not finite."""
        plain = {field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        document: dict[str, Any] = _finite({"schema_version": SCHEMA_VERSION, "unit": self.unit, **plain})
        return document


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ArmPair:
    """Two arms of a sweep, and their comparison or the reason why there is none."""

    a: str
    b: str
    found: Comparison | None
    refused: str | None = None


def _finite(value: Any) -> Any:
    """Return plain JSON types with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compare(a: Arm, b: Arm, config: FitConfig, *, flops: float | None = None) -> Comparison:
    """Compare B with A at every budget and at a target, by default 10 times the largest common budget.

    Raises:
        InputError: the points are not a usable table.
        RefusedError: the arms cannot be compared, one has too few budgets, or the target is too far.
    """
    measure = common_measure(a, b)
    minima = [_minima_of(in_measure(arm, measure), config) for arm in (a, b)]
    paired = pair(*minima)
    kinds = {one.observations.flops_per_token.kind for one in minima}
    if len(kinds) > 1:
        raise RefusedError(
            "mixed_counting",
            f"the FLOPs of {a.name} and {b.name} are counted differently, exactly and as 6 N D: give both "
            f"tables a column of FLOPs, or none",
        )
    largest = min(math.exp(float(one.log_c[-1])) for one in minima)
    flops = flops or float(f"{TARGET_REACH * largest:.1e}")
    if flops > config.max_reach * largest:
        raise RefusedError(
            "extrapolation",
            f"{flops:.3g} FLOPs are {flops / largest:.3g} times the largest budget that both arms have "
            f"({largest:.3g}), and up to {config.max_reach:g} times are allowed: give a nearer target, or "
            f"set fit.max_reach",
        )
    joint = fit_jointly(paired, n_draws=max(config.n_bootstrap, MIN_DRAWS), seed=config.seed)
    times = training_times(a, b, minima[0], minima[1], len(joint.draws.irreducible), config.seed)
    asked = _Asked(paired, joint, times, measure, config.confidence)
    points = [*a.points, *b.points]
    return Comparison(
        a=_summary(a, minima[0]),
        b=_summary(b, minima[1]),
        measure=measure,
        confidence=config.confidence,
        n_pairs=paired.n_pairs,
        correlation=paired.correlation,
        at=tuple(asked.at(budget) for budget in _budgets(paired)),
        target=asked.at(flops),
        crossing=asked.crossing(flops),
        exponents=asked.exponents(),
        device=None if isinstance(times, str) else next(p.device for p in points if p.device),
        no_seconds=times if isinstance(times, str) else None,
        warnings=(*_apart(minima), *_below_data(flops, minima), *_warnings(joint, measure)),
        curves=asked.curves(flops),
    )


def _minima_of(arm: Arm, config: FitConfig) -> ArmMinima:
    try:
        return arm_minima(arm, config)
    except RefusedError as refused:
        kind, reason = refused.refusal.kind, refused.refusal.reason
        raise RefusedError(kind, f"arm {arm.name}: {reason}") from None


def _summary(arm: Arm, minima: ArmMinima) -> ArmSummary:
    return ArmSummary(
        name=arm.name,
        n_points=len(minima.observations),
        n_diverged=sum(
            point.status == "diverged" and not {point.run_key, point.name} & (arm.excluded.keys() - {None})
            for point in arm.points
        ),
        budgets=tuple(np.exp(minima.log_c).tolist()),
        outliers=tuple(outlier.run_key for outlier in minima.outliers),
        warnings=minima.warnings,
    )


def _budgets(paired: PairedMinima) -> list[float]:
    """Return the budgets of both arms, ascending; those of A that B has too only once."""
    own = paired.b.log_c
    others = [x for x in paired.a.log_c.tolist() if np.abs(own - x).min() > SAME_BUDGET]
    return sorted(np.exp([*own.tolist(), *others]).tolist())


def _apart(minima: Sequence[ArmMinima]) -> tuple[str, ...]:
    """Return a warning for arms without a common range of budgets."""
    lowest, highest = (max(float(m.log_c[0]) for m in minima), min(float(m.log_c[-1]) for m in minima))
    if lowest <= highest + NEAR:
        return ()
    return (
        f"the budgets of one arm end at {math.exp(highest):.3g} FLOPs and those of the other begin at "
        f"{math.exp(lowest):.3g}: every multiplier is extrapolated, so add runs at budgets that both have",
    )


def _below_data(flops: float, minima: Sequence[ArmMinima]) -> tuple[str, ...]:
    """Return a warning for a target below the smallest budget that both arms have."""
    smallest = max(math.exp(float(one.log_c[0])) for one in minima)
    if math.log(flops / smallest) >= -NEAR:
        return ()
    return (
        f"{flops:.3g} FLOPs are {smallest / flops:.3g} times below the smallest budget that both arms have "
        f"({smallest:.3g}): the comparison there is extrapolated, and no point supports it",
    )


def _warnings(joint: JointFit, measure: Measure) -> tuple[str, ...]:
    found = []
    if joint.lack_of_fit is not None and joint.lack_of_fit < SIGNIFICANT:
        found.append(
            f"the minima scatter about E + K C^-gamma by more than their errors (p = "
            f"{joint.lack_of_fit:.2g}): the multipliers at the budgets hold better than that at the target"
        )
    if measure == "bits_per_byte":
        found.append(
            "the tokenizers differ: arms are compared in bits per byte, and their evaluation windows may "
            "hold different parts of the held-out text"
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Answers about a fitted pair of arms."""

    paired: PairedMinima
    joint: JointFit
    times: tuple[TrainingTime, TrainingTime] | str
    measure: Measure
    confidence: float

    def at(self, flops: float) -> MultiplierAt:
        """Return the comparison at a budget of B."""
        log_c = np.array([math.log(flops)])
        estimate, draws = self.joint.estimate, self.joint.draws
        log_k = [curves.log_multiplier(log_c) for curves in (estimate, draws)]
        reach = np.array([log_c[0], log_c[0] + log_k[0][0, 0]])
        ends = [(arm.log_c[0] - NEAR, arm.log_c[-1] + NEAR) for arm in self._arms[::-1]]
        inside = all(low <= x <= high for x, (low, high) in zip(reach, ends, strict=True))
        return MultiplierAt(
            flops=flops,
            extrapolated=not inside,
            loss_a=float(estimate.loss("a", log_c)[0, 0]),
            loss_b=float(estimate.loss("b", log_c)[0, 0]),
            flops_factor=self._factor(log_k),
            tokens_factor=None
            if self.measure == "bits_per_byte"
            else self._factor(self._tokens(log_c, log_k)),
            seconds_factor=None if isinstance(self.times, str) else self._factor(self._seconds(log_c, log_k)),
            p_b_better=float((log_k[1] > 0).mean()),
        )

    @property
    def _arms(self) -> tuple[ArmMinima, ArmMinima]:
        return self.paired.a, self.paired.b

    def _factor(self, logs: list[FloatArray]) -> BoundedEstimate:
        """Return the factor from logarithms of the estimate (1, 1) and of the draws (k, 1)."""
        low, high = percentiles(np.exp(logs[1][:, 0]), self.confidence)
        return BoundedEstimate(value=math.exp(float(logs[0][0, 0])), interval=(float(low), float(high)))

    def _tokens(self, log_c: FloatArray, log_k: list[FloatArray]) -> list[FloatArray]:
        """Return ln D_A(k C) - ln D_B(C) of estimate and draws."""
        return [
            self._log_tokens("a", curves, log_c + shift) - self._log_tokens("b", curves, log_c + 0 * shift)
            for curves, shift in zip((self.joint.estimate, self.joint.draws), log_k, strict=True)
        ]

    def _log_tokens(self, arm: str, curves: JointCurves, log_c: FloatArray) -> FloatArray:
        minima = self.paired.a if arm == "a" else self.paired.b
        n_params = np.exp(curves.log_size(arm, log_c))
        return log_c - minima.observations.flops_per_token.log_flops(n_params)

    def _seconds(self, log_c: FloatArray, log_k: list[FloatArray]) -> list[FloatArray]:
        """Return ln T_A(k C) - ln T_B(C) of estimate and draws."""
        assert not isinstance(self.times, str)
        time_a, time_b = self.times
        found = []
        for curves, shift, drawn in zip(
            (self.joint.estimate, self.joint.draws), log_k, (False, True), strict=True
        ):
            at_a, at_b = log_c + shift, log_c + 0 * shift
            slow = time_a.log_seconds(at_a, curves.log_size("a", at_a), drawn=drawn)
            fast = time_b.log_seconds(at_b, curves.log_size("b", at_b), drawn=drawn)
            found.append(slow - fast)
        return found

    def exponents(self) -> Exponents:
        """Return the exponents and their test."""
        estimate, draws, test = self.joint.estimate, self.joint.draws, self.joint.test
        gamma_a, gamma_b = float(estimate.gamma_a[0]), float(estimate.gamma_b[0])
        low, high = percentiles(draws.gamma_b / draws.gamma_a, self.confidence)
        return Exponents(
            gamma_a=gamma_a,
            gamma_b=gamma_b,
            ratio=BoundedEstimate(value=gamma_b / gamma_a, interval=(float(low), float(high))),
            preferred="separate" if test.p_value < SIGNIFICANT else "shared",
            ratio_without_prior=test.ratio,
            f=test.f,
            n_dof=test.n_dof,
            p_value=test.p_value,
        )

    def _range(self, target: float) -> tuple[float, float]:
        """Return the least and the largest budget considered."""
        smallest = math.exp(min(float(arm.log_c[0]) for arm in self._arms))
        largest = math.exp(max(float(arm.log_c[-1]) for arm in self._arms))
        return min(smallest, target), max(largest, target)

    def crossing(self, target: float) -> Crossing:
        """Return the crossing between the smallest budget and the target."""
        low, high = self._range(target)
        flops, share = crossing(self.joint.estimate), crossing_share(self.joint.draws, low, high)
        if not low <= flops <= high:
            return Crossing(range=(low, high), flops=None, interval=None, p_crossing=share)
        grid = np.linspace(math.log(low), math.log(high), 401)
        band = percentiles(self.joint.draws.log_multiplier(grid), self.confidence)
        undecided = (band[0] <= 0) & (band[1] >= 0)
        at = int(np.abs(grid - math.log(flops)).argmin())
        first, last = at, at
        while first > 0 and undecided[first - 1]:
            first -= 1
        while last < len(grid) - 1 and undecided[last + 1]:
            last += 1
        ends = (
            None if first == 0 else math.exp(float(grid[first])),
            None if last == len(grid) - 1 else math.exp(float(grid[last])),
        )
        return Crossing(range=(low, high), flops=flops, interval=ends, p_crossing=share)

    def curves(self, target: float) -> Curves:
        """Return the curves of a figure."""
        low, high = self._range(target)
        log_c = np.linspace(math.log(low), math.log(high), N_CURVE)
        estimate, draws = self.joint.estimate, self.joint.draws
        bands = {arm: np.stack(percentiles(draws.loss(arm, log_c), self.confidence)) for arm in ("a", "b")}
        k_band = np.exp(np.stack(percentiles(draws.log_multiplier(log_c), self.confidence)))
        minima_a, minima_b = (np.exp(np.stack([arm.log_c, arm.log_loss])) for arm in self._arms)
        return Curves(
            flops=np.exp(log_c),
            loss_a=estimate.loss("a", log_c)[0],
            loss_b=estimate.loss("b", log_c)[0],
            loss_a_band=bands["a"],
            loss_b_band=bands["b"],
            multiplier=np.exp(estimate.log_multiplier(log_c)[0]),
            multiplier_band=k_band,
            minima_a=minima_a,
            minima_b=minima_b,
            multiplier_at_minima=np.exp(self._measured()),
        )

    def _measured(self) -> FloatArray:
        """Return ln k at B's minima: A's fitted curve at their losses, corrected for A's own residual."""
        curves, (a, b) = self.joint.estimate, self._arms
        level, gamma, least = curves.level_a[0], curves.gamma_a[0], curves.irreducible[0]
        residual = np.interp(b.log_c, a.log_c, a.log_loss - np.log(curves.loss("a", a.log_c)[0]))
        reducible = np.exp(b.log_loss - residual) - least
        with np.errstate(invalid="ignore"):
            at = curves.center + (level - np.log(reducible)) / gamma
        return np.asarray(at - b.log_c, dtype=np.float64)
