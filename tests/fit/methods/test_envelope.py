"""The envelope: published slopes on the Gemstones, its hull against SciPy's, trunks, refusals."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from sweep.config import FitConfig
from sweep.fit import DEFAULT_COLUMNS, Refusal, fit, from_dataframe
from sweep.fit.laws.power_law import PowerLaw
from sweep.fit.methods.envelope import bias_warning
from sweep.fit.methods.envelope_draws import efficient_points
from sweep.records import CurvePoint
from tests.fit.planted import TINY, isoflop_points
from tests.fit.reference_data import reference_path

CONFIG = FitConfig(methods=("envelope",), n_bootstrap=100)
GEMSTONES = {
    "n_params": "params_active_precise",
    "n_tokens": "tokens",
    "flops": "FLOPs",
    "loss": "final_loss",
}


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("hot_477_with_flops", 0.499380216, 0.480988823),
        ("cool_end_with_flops", 0.596981017, 0.393260379),
        ("lr_ablation_hot_477_with_flops", 0.513127536, 0.485794433),
    ],
)
def test_row_3_gemstones_slopes(name, a, b):
    frame = pd.read_csv(reference_path(f"gemstones/{name}.csv"))
    columns = dataclasses.replace(DEFAULT_COLUMNS, **GEMSTONES, trunk="run_name")
    entry = fit(from_dataframe(frame, columns), CONFIG).methods["envelope"].to_json()
    assert entry["a"] == pytest.approx(a, abs=1e-9)
    assert entry["b"] == pytest.approx(b, abs=1e-9)
    assert entry["ci"]["a"][0] < entry["a"] < entry["ci"]["a"][1]


@given(seed=st.integers(0, 10_000), n=st.integers(4, 60))
@settings(max_examples=60, deadline=None)
def test_hull_is_that_of_qhull_where_the_loss_falls(seed, n):
    x, y = np.random.default_rng(seed).normal(size=(2, n))
    vertices = ConvexHull(np.stack([x, y], axis=1)).vertices
    lower = [
        i
        for i in vertices
        if not any(
            x[j] < x[i] < x[k] and y[j] + (y[k] - y[j]) * (x[i] - x[j]) / (x[k] - x[j]) < y[i]
            for j in vertices
            for k in vertices
        )
    ]
    order = sorted(lower, key=lambda i: x[i])
    falling = [i for place, i in enumerate(order) if all(y[i] < y[j] for j in order[:place])]
    assert efficient_points(x, y).tolist() == falling


def test_a_power_law_frontier_is_found_again():
    """One size is best at each budget, exactly on the planted power laws."""
    rows = []
    for flops in np.geomspace(1e18, 1e22, 9):
        best, loss = 0.1 * flops**0.5, 1.5 + 40 * flops**-0.09
        for factor in (0.5, 1, 2):
            n_params = best * factor
            rows.append((n_params, flops, flops / (6 * n_params), loss * (1 + 0.02 * (factor != 1))))
    frame = pd.DataFrame(rows, columns=["n_params", "flops", "n_tokens", "loss"])
    law = fit(frame, CONFIG).methods["envelope"]
    entry = law.to_json()
    assert entry["a"] == pytest.approx(0.5, abs=1e-12)
    assert len(entry["efficient"]) == 9
    assert law.loss_opt(1e20) == pytest.approx(1.5 + 40 * 1e20**-0.09, rel=2e-3)


def test_training_curves_are_shifted_to_the_held_out_loss():
    points = [
        dataclasses.replace(p, run_key=f"{i:016x}")
        for i, p in enumerate(isoflop_points(TINY, np.geomspace(1e11, 1e13, 5), n_sizes=5, span=3))
    ]
    curves = {
        p.run_key: tuple(
            CurvePoint(
                step=s,
                n_tokens=int(p.n_tokens * s / 10),
                flops=int(p.flops * s / 10),
                train_loss=TINY.loss(p.n_params, p.n_tokens * s / 10) - 0.1,
                lr=1e-3,
            )
            for s in range(1, 11)
        )
        for p in points
    }
    law = fit(points, CONFIG, curves=curves).methods["envelope"].to_json()
    assert law["n_records"] == 25 * 11
    assert fit(points, CONFIG).methods["envelope"].to_json()["n_records"] == 25
    # Curves of an unannealed law lie on the surface itself, so the frontier is the surface's.
    for flops, _, _, loss in law["efficient"][1:]:
        truth = TINY.optimum_by_search(flops, lambda n: 6 * n)
        assert loss == pytest.approx(TINY.loss(truth, flops / (6 * truth)), rel=0.01)


def test_few_points_on_the_hull_are_refused():
    points = isoflop_points(TINY, (1e11, 1.2e11), n_sizes=5, span=3)
    refused = fit(points, CONFIG).methods["envelope"]
    assert isinstance(refused, Refusal)
    assert refused.kind == "too_few_points"
    assert "add budgets" in refused.reason


def test_an_interval_without_its_estimate_gives_a_warning():
    """The simulated bias of a hull is subtracted from its intervals only."""
    points = isoflop_points(
        TINY, np.geomspace(1e11, 1e13, 5), n_sizes=7, span=3, sd=0.004, rng=np.random.default_rng(1)
    )
    law = fit(points, CONFIG).methods["envelope"]
    low, high = law.to_json()["ci"]["a"]
    within, outside = law.theta.copy(), law.theta.copy()
    within[PowerLaw.COLUMNS.index("a")], outside[PowerLaw.COLUMNS.index("a")] = (
        0.5 * (low + high),
        high + 0.01,
    )
    (warning,) = bias_warning(dataclasses.replace(law, theta=outside))
    assert "the interval of a" in warning
    assert not any("of a" in text for text in bias_warning(dataclasses.replace(law, theta=within)))


def test_intervals_of_unproved_coverage_are_marked():
    """Proved for the simulated loss; not for sizes on the hull, nor for resampled trunks."""
    points = isoflop_points(
        TINY, np.geomspace(1e11, 1e13, 5), n_sizes=7, span=3, sd=0.004, rng=np.random.default_rng(1)
    )
    law = fit(points, CONFIG).methods["envelope"]
    assert set(law.unproved) == {"n_params_opt", "n_tokens_opt", "tokens_per_param_opt"}
    assert {"a", "b", "E", "gamma"} < set(law.to_json()["unproved"])
    assert law.prediction_interval(1e13) is not None
    assert any("approximate" in warning for warning in law.warnings)
    trunks = [dataclasses.replace(p, trunk=str(i // 2)) for i, p in enumerate(points)]
    rough = fit(trunks, CONFIG).methods["envelope"]
    assert "loss_opt" in rough.unproved
    assert any("whole trunks" in warning for warning in rough.warnings)
    assert rough.to_json()["bootstrap"]["scheme"] == "whole trunks"
