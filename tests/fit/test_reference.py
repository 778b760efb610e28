"""Published results, to the digits to which they were computed independently."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from sweep.config import FitConfig, IsoflopOptions
from sweep.fit import from_dataframe
from sweep.fit.laws.power_law import power_laws
from sweep.fit.methods.parabola import Parabola, fit_parabola
from sweep.fit.methods.parametric import ParametricLaw
from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.minimise import minimise
from tests.fit.one_method import answer
from tests.fit.planted import PlantedLaw
from tests.fit.reference_data import chinchilla_frame, chinchilla_points, gemstones_points, reference_path

NO_BOOTSTRAP = FitConfig(n_bootstrap=0)


def parametric(points):
    law = answer(points, "parametric", NO_BOOTSTRAP)
    assert isinstance(law, ParametricLaw)
    return law, law.to_json()


def test_row_1_chinchilla_without_the_five_outliers():
    points = chinchilla_points(keep_outliers=False)
    assert len(points) == 240
    law, entry = parametric(points)
    assert law.objective <= 1.0182740179e-3 * (1 + 1e-8)
    assert entry["E"] == pytest.approx(1.817218, abs=1e-6)
    assert entry["A"] == pytest.approx(477.8259, abs=1e-4)
    assert entry["B"] == pytest.approx(2143.4173, abs=1e-4)
    assert entry["alpha"] == pytest.approx(0.3473105, abs=1e-7)
    assert entry["beta"] == pytest.approx(0.3671724, abs=1e-7)
    assert entry["a"] == pytest.approx(0.51390, abs=5e-6)
    assert law.estimate("tokens_per_param_opt", 1e21) == pytest.approx(21.385, abs=1e-3)
    assert law.estimate("tokens_per_param_opt", 5.76e23) == pytest.approx(17.921, abs=1e-3)


def test_row_1b_chinchilla_with_all_points():
    law, entry = parametric(chinchilla_points(keep_outliers=True))
    assert law.objective == pytest.approx(1.8260105e-3, abs=1e-10)
    assert entry["E"] == pytest.approx(1.891339, abs=1e-6)
    assert entry["A"] == pytest.approx(495.726, abs=1e-3)
    assert entry["B"] == pytest.approx(12845.61, abs=1e-2)
    assert entry["alpha"] == pytest.approx(0.349313, abs=1e-6)
    assert entry["beta"] == pytest.approx(0.453049, abs=1e-6)
    assert entry["a"] == pytest.approx(0.5646, abs=1e-4)


def test_row_1c_chinchilla_bootstrap_of_4000_resamples():
    frame = chinchilla_frame(keep_outliers=False)
    n_params, flops = frame["n_params"].to_numpy(), frame["flops"].to_numpy()
    data = CentredData.of(n_params, flops / (6 * n_params), frame["loss"].to_numpy())
    start = minimise(data, np.array([[-1.0, -1.0, 0.0, 0.35, 0.35]]), data.y, 1e-3)
    legacy = np.random.RandomState(42)  # the stream of np.random.seed(42), as in the reference
    picks = [legacy.choice(240, 240, replace=True) for _ in range(4000)]
    weights = np.stack([np.bincount(pick, minlength=240) for pick in picks]).astype(float)
    solution = minimise(data, np.repeat(start.theta, 4000, axis=0), data.y, 1e-3, weights=weights)
    assert solution.converged.all()
    theta = data.from_centred(solution.theta)
    alpha, beta = theta[:, 3], theta[:, 4]
    for values, low, high, digits in (
        (np.exp(theta[:, 1]), 1042.36, 5810.34, 0.03),
        (np.exp(theta[:, 2]), 1.76935, 1.87123, 5e-6),
        (alpha, 0.31677, 0.37328, 6e-5),
        (beta, 0.33126, 0.41538, 6e-6),
        (beta / (alpha + beta), 0.4805, 0.5561, 5e-5),
    ):
        assert np.percentile(values, [2.5, 97.5]) == pytest.approx([low, high], abs=digits)
    # The lower end of A falls between two far-apart resamples; the reference gives 285 to 286.
    a_low, a_high = np.percentile(np.exp(theta[:, 0]), [2.5, 97.5])
    assert 285 <= a_low <= 286.2
    assert a_high == pytest.approx(743.63, abs=0.03)
    g = (alpha * np.exp(theta[:, 0]) / (beta * np.exp(theta[:, 1]))) ** (1 / (alpha + beta))
    ratio = (5.76e23 / 6) ** ((alpha - beta) / (alpha + beta)) / g**2
    assert np.percentile(ratio, [10, 50, 90]) == pytest.approx([9.9, 17.2, 29.0], abs=0.05)


def test_row_2_gemstones():
    points = gemstones_points()
    assert len(points) == 220
    law, _ = parametric(points)
    assert law.objective <= 1.98161281e-3 * (1 + 1e-8)
    a, b, e, alpha, beta = law.theta
    assert [a, b] == pytest.approx([5.361689, 15.418452], abs=1e-6)
    assert [e, alpha, beta] == pytest.approx([0.762303, 0.292892, 0.712979], abs=1e-6)


CHINCHILLA_LIKE = PlantedLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
ASYMMETRIC = PlantedLaw(E=1.69, A=406.4, B=410.7, alpha=0.465, beta=0.155)
SYMMETRIC = PlantedLaw(E=1.69, A=400.0, B=400.0, alpha=0.31, beta=0.31)


BIAS_PERCENT = {  # law, how far off the grid is centred: error at half-widths of 2, 4, 8 and 16
    (CHINCHILLA_LIKE, 1): (-0.326938, -1.301125, -2.902905, -5.100245),
    (ASYMMETRIC, 1): (-1.674748, -6.497779, -13.910419, -23.116308),
    (SYMMETRIC, 1): (0.0, 0.0, 0.0, 0.0),
    (SYMMETRIC, 3): (3.974244, 3.471818, 2.645165, 1.509792),
}


@pytest.mark.parametrize(
    ("law", "offset", "half_width", "percent"),
    [
        (law, offset, half_width, percent)
        for (law, offset), errors in BIAS_PERCENT.items()
        for half_width, percent in zip((2, 4, 8, 16), errors, strict=True)
    ],
)
def test_row_4_bias_of_the_parabola_without_noise(law, offset, half_width, percent):
    """The known error of Approach 2: D* at 1e24 from parabolas at five budgets, 15 points each.

    Each value agrees with 50-digit arithmetic, which corrects one published digit (-6.497779, not ..99).
    """
    log_c, minima = [], []
    for flops in np.geomspace(1e17, 1e21, 5):
        _, n_tokens_opt = law.optimum_6nd(flops)
        n_tokens = n_tokens_opt * offset * np.geomspace(1 / half_width, half_width, 15)
        n_params = flops / (6 * n_tokens)
        loss = np.array([law.loss(n, d) for n, d in zip(n_params, n_tokens, strict=True)])
        parabola = fit_parabola(n_params, np.full(15, flops), loss)
        t, loss_opt = Parabola.vertex(np.array(parabola.coefficients))
        log_n = parabola.center + float(t)
        log_c.append(math.log(flops))
        minima.append((log_n, math.log(flops / 6) - log_n, float(loss_opt)))
    laws = power_laws(np.array(log_c), np.array(minima).T)
    predicted = math.exp(laws[2] + laws[3] * math.log(1e24))
    error = 100 * (predicted / law.optimum_6nd(1e24)[1] - 1)
    assert error == pytest.approx(percent, abs=1e-6 if percent else 1e-8)


@pytest.mark.parametrize(
    ("table", "options", "exponent", "published", "within"),
    [
        ("llama3_raw", IsoflopOptions(window="all", weighted=False), "b", 0.537, 0.001),  # section 3.2.1
        ("porian_rw_tuned_constant", IsoflopOptions(window=7), "a", 0.497, 0.005),  # figure 1, last step
        ("porian_rw_cosine", IsoflopOptions(window=7, weighted=False), "a", 0.572, 0.025),  # fourth step
    ],
)
def test_published_isoflop_exponents_with_the_authors_windows(table, options, exponent, published, within):
    """Llama 3 takes all sizes; Porian et al. take minima of a spline, near those of local parabolas."""
    frame = pd.read_csv(reference_path(f"sweeps/{table}.csv"))
    points = from_dataframe(frame.assign(flops=frame["flops_budget"]))
    law = answer(points, "isoflop", dataclasses.replace(NO_BOOTSTRAP, isoflop=options))
    assert law.constants[exponent] == pytest.approx(published, abs=within)


def test_marins_exponent_of_tokens_is_that_of_its_authors_parabolas():
    """Marin fits parabolas in log D to all sizes, and a line through their minima (Comma corpus)."""
    frame = pd.read_csv(reference_path("sweeps/marin_comma.csv"))
    points = from_dataframe(frame.assign(flops=frame["flops_budget"]))
    every_size = IsoflopOptions(window="all", weighted=False)
    law = answer(points, "isoflop", dataclasses.replace(NO_BOOTSTRAP, isoflop=every_size))
    vertices = {}
    for budget, runs in frame.groupby("flops_budget"):
        curvature, slope, _ = np.polyfit(np.log10(runs["n_tokens"]), runs["loss"], 2)
        vertices[math.log10(budget)] = -slope / (2 * curvature)
    exponent = np.polyfit(list(vertices), list(vertices.values()), 1)[0]
    assert exponent == pytest.approx(0.572, abs=5e-4)
    assert law.b_direct == pytest.approx(exponent, abs=5e-4)
