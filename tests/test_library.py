"""The names that `sweep` exports, for notebooks and scripts."""

import doctest
import subprocess
import sys

import pytest

import sweep
from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.worker.__main__ import work
from tests.shell import environment
from tests.toy_trainer import toy_sweep, train


def test_importing_sweep_loads_nothing_heavy():
    program = "import sys, sweep\nprint(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    for heavy in ("torch", "pandas", "numpy", "hydra", "matplotlib", "scipy", "pydantic"):
        assert f"'{heavy}'" not in done.stdout


def test_every_exported_name_is_there_and_the_docstring_runs(tmp_path, monkeypatch):
    for name in sweep.__all__:
        assert callable(getattr(sweep, name))
        assert name in dir(sweep)
    with pytest.raises(AttributeError, match="open_swep"):
        sweep.open_swep  # noqa: B018
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(sweep).failed == 0
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_is_opened_fitted_and_asked(tmp_path):
    with pytest.raises(InputError, match="holds no plan"):
        sweep.open_sweep(tmp_path)
    store = toy_sweep(tmp_path / "toy", 4)
    work(store.sweep_dir, train=train)
    toy = sweep.open_sweep(tmp_path / "toy")
    assert toy.experiment.name == "toy"
    assert toy.arms == ()
    assert toy.status().counts == {"done": 4}
    assert list(toy.points["loss"]) == [point.loss for point in store.points().points]
    assert toy.points["run_key"].is_unique
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
