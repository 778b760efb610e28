"""The names that `sweep` exports, for notebooks and scripts."""

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sweep
from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.fit.methods.parametric import ParametricLaw
from sweep.worker.__main__ import work
from tests.shell import environment
from tests.toy_trainer import toy_sweep, train

PLANTED_E, ALPHA_BETA = 1.8, (0.35, 0.33)


def test_importing_sweep_loads_nothing_heavy():
    program = "import sys, sweep\nprint(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    for heavy in ("torch", "pandas", "numpy", "hydra", "matplotlib", "scipy", "pydantic"):
        assert f"'{heavy}'" not in done.stdout


SOURCES = sorted(Path(sweep.__file__).parent.rglob("*.py"))
WITH_EXAMPLES = [path for path in SOURCES if re.search(r"^ *>>> ", path.read_text(), re.MULTILINE)]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_in_docstrings_hold(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = path.relative_to(Path(sweep.__file__).parents[1]).with_suffix("").parts
    module = importlib.import_module(".".join(words).removesuffix(".__init__"))
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
    assert list(tmp_path.iterdir()) == []


def test_every_exported_name_is_there():
    for name in sweep.__all__:
        assert callable(getattr(sweep, name))
        assert name in dir(sweep)
    with pytest.raises(AttributeError, match="open_swep"):
        sweep.open_swep  # noqa: B018


def test_a_sweep_is_opened_fitted_and_asked(tmp_path):
    with pytest.raises(InputError, match="holds no sweep"):
        sweep.open_sweep(tmp_path)
    store = toy_sweep(tmp_path / "toy", 4)
    work(store.sweep_dir, train=train)
    toy = sweep.open_sweep(tmp_path / "toy")
    assert toy.experiment.name == "toy"
    assert toy.arms == ()
    assert toy.status().counts == {"done": 4}
    assert list(toy.points()["loss"]) == [point.loss for point in store.points().points]
    assert toy.points()["run_key"].is_unique
    with pytest.raises(InputError, match=r"no fit.json yet"):
        toy.predict(1e12)
    fitted = toy.fit()
    assert fitted.n_points == 4
    assert (tmp_path / "toy/fit.json").is_file()
    with pytest.raises(InputError, match="unknown arm a: the sweep has no arms"):
        toy.fit(arm="a")
    near, far = toy.predict(1e12, 1e13)
    assert (near.flops, far.flops) == (1e12, 1e13)
    assert all(path.is_file() for path in toy.report())


def test_the_answer_of_a_sweep_is_asked_drawn_and_refused(tmp_path):
    store = toy_sweep(tmp_path / "toy", 4)
    work(store.sweep_dir, train=train)
    toy = sweep.open_sweep(tmp_path / "toy")
    toy.fit()
    with pytest.raises(InputError, match="there is no answer: 1e12 FLOPs are"):
        toy.answer(1e12)
    with pytest.raises(InputError, match="'iso' is not the name of one figure: choose from isoflop_curves"):
        toy.figure("iso")
    with pytest.raises(InputError, match="no numbers for the figure validations"):
        toy.figure("validations")
    assert toy.figure("utilisation")._repr_png_().startswith(b"\x89PNG")
    assert toy.validations == ()
    with pytest.raises(InputError):
        toy.validate()


def test_a_fit_shows_constants_with_intervals_in_ten_lines():
    fitted = sweep.fit_table(planted_table(), FitConfig(n_bootstrap=50))
    assert len(repr(fitted).splitlines()) == 10
    assert repr(fitted).splitlines()[2].startswith(f"answer            {fitted.a}")
    law = fitted.laws["parametric"]
    assert isinstance(law, ParametricLaw)
    for estimate, planted in ((law.a, ALPHA_BETA[1] / sum(ALPHA_BETA)), (law.E, PLANTED_E)):
        assert estimate.interval is not None
        assert estimate.interval[0] < float(estimate) < estimate.interval[1]
        assert float(estimate) == pytest.approx(planted, rel=0.1)
    assert float(fitted.E) == float(law.E)
    low, high = fitted.answer.a.interval
    assert low < law.a.value < high
    assert len(repr(law)) < 400
    with pytest.raises(AttributeError, match="has no constant E: it has Nc"):
        fitted.laws["kaplan"].E  # noqa: B018
    with pytest.raises(AttributeError, match="no n_params_opt: the method is refused, because the number of"):
        fitted.methods["data_constrained"].n_params_opt(1e20)
    assert not hasattr(fitted.methods["data_constrained"], "__array__")


def planted_table() -> pd.DataFrame:
    """Return runs of L = E + A/N^alpha + B/D^beta with noise, at four budgets."""
    rng, rows = np.random.default_rng(0), []
    for flops in (1e17, 3e17, 1e18, 3e18):
        for n_params in np.sqrt(flops / 120) * np.geomspace(0.3, 3, 7):
            n_tokens = flops / (6 * n_params)
            loss = PLANTED_E + 400 / n_params ** ALPHA_BETA[0] + 400 / n_tokens ** ALPHA_BETA[1]
            rows.append((n_params, n_tokens, flops, loss * np.exp(0.001 * rng.standard_normal())))
    return pd.DataFrame(rows, columns=["n_params", "n_tokens", "flops", "loss"])


def test_a_table_is_fitted_with_settings_and_columns(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("N,n_tokens,loss\n1e6,1e8,3\n2e6,1e8,2.9\n")
    from sweep.config import ColumnsConfig

    columns = ColumnsConfig(**{f: f for f in ColumnsConfig.__slots__} | {"n_params": "N"})
    fitted = sweep.fit_table(path, FitConfig(), columns=columns)
    assert fitted.n_points == 2
    assert len(sweep.read_table(path, columns)) == 2
    with pytest.raises(InputError, match="not found"):
        sweep.fit_table(tmp_path / "absent.csv")
