"""A fit method added through the registry alone is fitted, written, read, predicted from and drawn."""

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from rich.console import Console

from sweep.config import FitConfig
from sweep.config.compose import compose_experiment
from sweep.errors import InputError
from sweep.fit import METHODS, Fit, Method, Refusal, fit, predict, read_fit
from sweep.fit.laws.base import Optimum
from sweep.fit.laws.drawn_law import DrawnLaw
from sweep.fit.refusals import RefusedError
from sweep.report.figures.style import method_color
from sweep.report.results import SweepResults
from sweep.report.series.optima import optimum_panels
from sweep.report.text.fit import fit_text
from sweep.study.checks import check_fit_methods
from sweep.study.laws import write_fit
from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token

CONFIG = FitConfig(methods=("square_root",), n_bootstrap=20)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SquareRootLaw(DrawnLaw):
    """N_opt = K C^(1/2) through the best run of each budget, theta = (ln K,)."""

    COLUMNS: ClassVar[tuple[str, ...]] = ("ln K",)

    n_budgets: int

    @property
    def assumed(self):
        return "a", "b"

    def named(self, theta):
        half = np.full(theta.shape[:-1], 0.5)
        return {"K": np.exp(theta[..., 0]), "a": half, "b": half}

    def _optimum(self, theta, flops):
        n_params = np.exp(theta[..., :1] + 0.5 * np.log(flops))
        return Optimum(
            n_params_opt=n_params,
            n_tokens_opt=flops / self.flops_per_token(n_params),
            loss_opt=np.ones_like(n_params),
        )


def fit_square_root(observations, config):
    if len(observations.budgets) < 2:
        raise RefusedError("no_budgets", "there are no budgets: add some")
    best = [
        min(np.flatnonzero(observations.budget == index), key=lambda row: observations.loss[row])
        for index in range(len(observations.budgets))
    ]
    log_k = np.log(observations.n_params[best]) - 0.5 * np.log(observations.flops[best])
    rng = np.random.default_rng(config.seed)
    return SquareRootLaw(
        theta=np.array([log_k.mean()]),
        draws=rng.choice(log_k, (config.n_bootstrap, len(log_k))).mean(axis=1, keepdims=True),
        scheme="budgets",
        n_degenerate=0,
        flops_per_token=observations.flops_per_token,
        confidence=config.confidence,
        noise=None,
        warnings=("a toy",),
        n_budgets=len(best),
    )


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(
        METHODS, "square_root", Method(fit=fit_square_root, law=SquareRootLaw, color="#000000")
    )


def points(n_budgets=5):
    budgets = np.geomspace(1e11, 1e13, 5)[:n_budgets]
    return isoflop_points(TINY, budgets, n_sizes=7, span=3, flops_per_token=tiny_flops_per_token)


def test_one_registry_entry_adds_a_method_everywhere(toy, tmp_path):
    found = fit(points(), CONFIG)
    law = found.laws["square_root"]
    assert law.n_params_opt(1e12) == pytest.approx(
        TINY.optimum_by_search(1e12, tiny_flops_per_token), rel=0.5
    )
    assert law.interval("n_params_opt", 1e12)[0] < law.interval("n_params_opt", 1e12)[1]
    assert law.exponents == (0.5, 0.5)
    assert law.ci.keys() == {"K"}
    assert law.assumes_exponents
    assert found.backtest.methods["square_root"].budgets[0].n_params_opt > 0

    write_fit(tmp_path / "fit.json", found)
    back = read_fit(tmp_path / "fit.json")
    assert back.to_json() == found.to_json()
    assert isinstance(back.laws["square_root"], SquareRootLaw)
    assert back.laws["square_root"].n_budgets == 5
    (prediction,) = predict(back, [1e14])
    assert prediction.methods["square_root"].estimate["n_params_opt"] == law.n_params_opt(1e14)

    panels = optimum_panels(SweepResults(fit=back, points=points()))
    assert {curve.method for panel in panels for curve in panel.curves} == {"answer", "square_root"}
    assert method_color("square_root", 0) == "#000000"
    stream = io.StringIO()
    Console(file=stream, width=200).print(fit_text(back, prediction, verbose=True))
    shown = stream.getvalue()
    assert "square_root (exact FLOPs, 95% intervals)" in shown
    assert "a = 0.5" in shown


def test_its_refusal_stands_in_its_place(toy):
    found = fit(points(n_budgets=1), CONFIG)
    assert found.methods["square_root"] == Refusal(kind="no_budgets", reason="there are no budgets: add some")
    assert Fit.from_json(found.to_json()).methods == found.methods


def test_every_method_is_fitted_by_default(toy):
    found = fit(points(), FitConfig(n_bootstrap=0))
    assert tuple(found.methods) == tuple(METHODS)
    assert fit(points(n_budgets=1)).methods.keys() == METHODS.keys()


def test_an_unknown_method_is_refused_with_the_names_of_the_known_ones():
    with pytest.raises(
        InputError, match=r"fit\.methods=square_root is unknown: choose from envelope, isoflop"
    ):
        fit(points(), CONFIG)
    with pytest.raises(InputError, match=r"fit\.methods=square_root is unknown"):  # before any run is trained
        check_fit_methods(compose_experiment(["experiment=smoke", "fit.methods=[square_root]"]))
    document = fit(points(), FitConfig(methods=("isoflop",), n_bootstrap=0)).to_json()
    document["methods"]["square_root"] = document["methods"].pop("isoflop")
    with pytest.raises(InputError, match=r"methods\.square_root is unknown: choose from envelope"):
        Fit.from_json(document)
