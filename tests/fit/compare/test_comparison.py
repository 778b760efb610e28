"""Comparisons of planted arms: intervals, pairing, exponents, crossings and refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scripts.benchmarks.compare_coverage import Plant, measure
from sweep.config import FitConfig
from sweep.fit.compare.arms import Arm, arm_minima, pair
from sweep.fit.compare.comparison import Comparison, compare
from sweep.fit.refusals import RefusedError

CONFIG = FitConfig(n_bootstrap=300, confidence=0.9)
TIMED = {"tokens_per_second": 1e5, "device": "cpu"}


def compared(plant: Plant, seed: int = 0, **options: float) -> Comparison:
    a, b, _ = plant.draw(np.random.default_rng(seed))
    return compare(a, b, CONFIG, **options)


def changed(arm: Arm, **values: object) -> Arm:
    return replace(arm, points=[replace(point, **values) for point in arm.points])


def arms(plant: Plant | None = None, seed: int = 0) -> tuple[Arm, Arm]:
    a, b, _ = (plant or Plant(name="factor")).draw(np.random.default_rng(seed))
    return a, b


def test_a_planted_factor_is_found_at_every_budget_and_at_the_target():
    found = compared(Plant(name="factor", multiplier=1.3), flops=1.6e13)
    assert len(found.at) == 5
    for at in (*found.at, found.target):
        low, high = at.flops_factor.interval
        assert low <= 1.3 <= high
        assert low > 1
        assert high < 2
        assert at.p_b_better > 0.99
        assert at.loss_b < at.loss_a
    assert [at.extrapolated for at in found.at] == [False] * 4 + [True]  # 1.3 times the last one, for A
    assert found.target.extrapolated
    assert found.exponents.preferred == "shared"
    assert found.crossing.flops is None
    assert found.crossing.p_crossing < 0.01
    assert 50 <= found.n_pairs <= 60  # those within the windows of both
    assert found.correlation == pytest.approx(0.5, abs=0.2)


def test_identical_arms_but_for_the_seed_hold_one():
    found = compared(Plant(name="same", multiplier=1.0, correlation=0.0))
    for at in (*found.at, found.target):
        assert at.flops_factor.interval[0] <= 1 <= at.flops_factor.interval[1]


def test_different_exponents_are_found_and_where_the_arms_cross():
    plant = Plant(name="crossing", multiplier=1.0, delta=0.2, sd=0.002)
    found = compared(plant)
    assert found.exponents.preferred == "separate"
    assert found.exponents.p_value < 0.001
    low, high = found.exponents.ratio.interval
    assert low <= 1.2 <= high
    first, last = found.crossing.interval
    assert first < math.exp(plant.center) < last
    assert first < found.crossing.flops < last
    assert found.crossing.p_crossing > 0.99
    assert found.at[0].p_b_better < 0.01
    assert found.at[-1].p_b_better > 0.99


def test_tokens_and_seconds_follow_from_the_optima():
    """With B's runs twice as fast per token, B's advantage in seconds is twice that in tokens."""
    a, b = arms(Plant(name="quiet", sd=0.0005))
    found = compare(changed(a, **TIMED), changed(b, **{**TIMED, "tokens_per_second": 2e5}), CONFIG)
    at = found.at[2]
    assert at.tokens_factor.value == pytest.approx(math.sqrt(1.3), rel=0.1)
    assert at.seconds_factor.value == pytest.approx(2 * at.tokens_factor.value, rel=0.02)
    assert found.device == "cpu"
    assert found.no_seconds is None


def test_seconds_of_different_devices_are_not_compared():
    a, b = arms()
    found = compare(changed(a, **TIMED), changed(b, **{**TIMED, "device": "gpu"}), CONFIG)
    assert found.target.seconds_factor is None
    assert "different devices (cpu, gpu)" in found.no_seconds
    untimed = compare(a, b, CONFIG)
    assert "tokens_per_second" in untimed.no_seconds


def test_pairing_uses_runs_of_equal_budget_size_and_seed():
    a, b = (arm_minima(arm, CONFIG) for arm in arms(Plant(name="common", correlation=0.9)))
    paired, unpaired = pair(a, b), pair(a, b, paired=False)
    assert (paired.n_pairs, unpaired.correlation) == (unpaired.n_pairs, 0.0)
    assert paired.correlation > 0.7
    contrast = np.r_[np.full(5, 0.2), np.full(5, -0.2), np.zeros(10)]
    variances = [contrast @ one.covariance @ contrast for one in (paired, unpaired)]
    assert variances[0] < 0.3 * variances[1]
    other_seeds = changed(arms()[1], seed=7)
    assert pair(a, arm_minima(other_seeds, CONFIG)).n_pairs == 0


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(Plant(name="factor", multiplier=1.3), marks=pytest.mark.long),
        pytest.param(Plant(name="prior", delta=None), marks=pytest.mark.ci),
        pytest.param(Plant(name="noisy", n_seeds=1, sd=0.008), marks=pytest.mark.ci),
    ],
    ids=lambda plant: plant.name,
)
def test_intervals_have_their_nominal_coverage_and_pairing_helps(plant):
    """90 % intervals, 40 pairs at three budgets; docs/compare.md has the coverage over more."""
    rng = np.random.default_rng(1)
    found = [measure(plant, rng, replace(CONFIG, n_bootstrap=200)) for _ in range(40)]
    held = np.array([(one.lower <= 0) & (one.upper >= 0) for one in found])
    assert 0.82 <= held.mean() <= 0.99
    error, width = np.array([one.error for one in found]), np.array([one.upper - one.lower for one in found])
    spread = np.ptp(np.quantile(error, [0.05, 0.95], axis=0), axis=0)
    assert (width.mean(axis=0) / spread).max() < 1.8  # 40 pairs give the spread to about 10 %
    assert (np.array([one.width_unpaired for one in found]).mean(axis=0) > 1.1 * width.mean(axis=0)).all()


def test_other_evaluation_windows_are_refused():
    a, b = (changed(arm, tokenizer_sha256="t", corpus_sha256="c") for arm in arms())
    with pytest.raises(RefusedError, match="different evaluation windows"):
        compare(changed(a, evaluation_sha256="1"), changed(b, evaluation_sha256="2"), CONFIG)
    with pytest.raises(RefusedError, match="different corpora"):
        compare(a, changed(b, corpus_sha256="d"), CONFIG)
    other_data = changed(b, corpus_sha256="d", evaluation_sha256="1")
    assert compare(changed(a, evaluation_sha256="1"), other_data, CONFIG).measure == "loss"


def test_other_tokenizers_are_compared_in_bits_per_byte():
    a, b = arms(Plant(name="factor", multiplier=1.3))
    one, other = changed(a, tokenizer_sha256="1"), changed(b, tokenizer_sha256="2")
    with pytest.raises(RefusedError, match="give every run bits_per_byte"):
        compare(one, other, CONFIG)
    bits = [
        replace(arm, points=[replace(p, bits_per_byte=p.loss / 2, loss=p.loss * scale) for p in arm.points])
        for arm, scale in ((one, 1.0), (other, 1.4))
    ]
    found = compare(*bits, CONFIG)
    assert found.measure == "bits_per_byte"
    assert found.unit == "bits per byte"
    assert found.target.tokens_factor is None
    low, high = found.at[2].flops_factor.interval
    assert low <= 1.3 <= high


def test_too_few_budgets_and_far_targets_are_refused():
    a, b = arms()
    few = replace(b, points=[point for point in b.points if point.flops < 3e11])
    with pytest.raises(RefusedError, match="arm b: 2 of 2 budgets have a valid minimum and 3 are needed"):
        compare(a, few, CONFIG)
    with pytest.raises(RefusedError, match=r"6.25e\+03 times the largest budget"):
        compare(a, b, CONFIG, flops=1e16)
    with pytest.raises(RefusedError, match="arm b has no finished run"):
        compare(a, replace(b, points=[]), CONFIG)


def test_a_target_below_the_budgets_is_said_to_be_extrapolated():
    low = compared(Plant(name="factor", multiplier=1.3), flops=1e8)
    assert low.target.extrapolated
    assert "times below the smallest budget that both arms have (" in low.warnings[0]
    inside = compared(Plant(name="factor", multiplier=1.3), flops=float(low.b.budgets[1]))
    assert not any("below the smallest" in warning for warning in inside.warnings)


def test_arms_without_a_common_range_of_budgets_are_named():
    plant = Plant(name="factor", multiplier=1.3)
    a, b = arms(plant)
    far = [replace(p, flops=1e3 * p.flops, n_tokens=1e3 * p.n_tokens, flops_budget=None) for p in b.points]
    warnings = compare(a, replace(b, points=far), CONFIG).warnings
    assert "those of the other begin at" in warnings[0]
    assert not any("begin at" in warning for warning in compared(plant).warnings)


def test_an_outlier_is_left_out_and_named():
    a, b = arms()
    points = list(b.points)
    points[14] = replace(points[14], loss=points[14].loss * 1.2, run_key="bad")
    found = compare(a, replace(b, points=points), CONFIG)
    assert found.b.outliers == ("bad",)
    assert found.at[2].flops_factor.interval[0] <= 1.3 <= found.at[2].flops_factor.interval[1]


def test_excluded_runs_count_for_nothing():
    a, b = arms()
    points = [replace(point, run_key=f"run-{at}") for at, point in enumerate(b.points)]
    extra = replace(points[3], run_key="extra", loss=9.0)
    excluded = replace(b, points=[*points, extra], excluded={"extra": "by hand"})
    plain = replace(b, points=points)
    documents = [compare(a, one, CONFIG).to_json() for one in (excluded, plain)]
    assert documents[0] == documents[1]
