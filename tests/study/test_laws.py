"""Fits and figures of a sweep's arms, and laws read for predictions."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.store.run_store import RunStore, StoredPoints
from sweep.study import laws
from sweep.study.report import figure_files, write_report
from tests.report.figures.planted import planted_sweep


@pytest.fixture
def two_arms(monkeypatch):
    """A store of two arms with planted points, the second with higher losses."""
    points = planted_sweep().points
    arms = [
        replace(
            point,
            arm=arm,
            run_key=f"{arm}-{index}",
            name=f"{arm}-{index}",
            loss=point.loss and point.loss + offset,
        )
        for arm, offset in (("a", 0.0), ("b=[1,2]", 0.3))
        for index, point in enumerate(points)
    ]
    stored = StoredPoints(points=tuple(arms), excluded=(), curves={})
    monkeypatch.setattr(RunStore, "points", lambda self: stored)
    monkeypatch.setattr(RunStore, "write_points", lambda self: ())


@pytest.mark.ci
def test_arms_are_fitted_and_drawn_separately(two_arms, tmp_path):
    config = FitConfig(n_bootstrap=0, methods=("isoflop",))
    fits = laws.fit_sweep(tmp_path, config)
    assert list(fits) == ["a", "b=[1,2]"]
    assert fits["b=[1,2]"].laws["isoflop"].estimate("loss_opt", 1e12) == pytest.approx(
        fits["a"].laws["isoflop"].estimate("loss_opt", 1e12) + 0.3, abs=0.01
    )
    stale = tmp_path / "arms" / "a" / "figures" / "old.png"
    stale.parent.mkdir()
    stale.touch()
    page, *figures = write_report(tmp_path, files=figure_files(["png"], "screen"))
    assert page == tmp_path / "report.html"
    shown = page.read_text(encoding="utf-8")
    assert "arm a" in shown
    assert "arm b=[1,2]" in shown
    *of_arms, overlaid = figures
    assert {path.parent.parent.name for path in of_arms} == {"a", "b=_1,2_"}
    assert overlaid == tmp_path / "figures" / "arms.png"
    assert all(path.is_file() for path in figures)
    assert not stale.exists()


def test_a_law_is_read_from_a_directory_a_file_or_the_catalogue(tmp_path):
    law = laws.read_law("besiroglu_2024")
    laws.write_fit(tmp_path / "results/x/arms/a/fit.json", law)
    for source in (tmp_path / "results/x/arms/a", tmp_path / "results/x/arms/a/fit.json"):
        assert laws.read_law(str(source)).to_json() == law.to_json()
        assert laws.sweep_of_law(str(source)) is None
    (tmp_path / "results/x/plans").mkdir()
    assert laws.sweep_of_law(str(source)) == tmp_path / "results/x"
    with pytest.raises(InputError, match="holds no sweep"):
        laws.read_law(str(tmp_path / "results"))
    (tmp_path / "results/x/plans/0123456789abcdef.json").touch()
    with pytest.raises(InputError, match=r"has no fit.json yet, and no finished run"):
        laws.read_law(str(tmp_path / "results/x"))
    with pytest.raises(InputError, match=r"choose from hoffmann_2022_approach_1.*besiroglu_2024"):
        laws.read_law("chinchilla")


def test_file_systems_of_one_machine_are_warned_of(monkeypatch):
    from sweep.study import checks

    types = {"/shared": "nfs4", "/home": "ext4"}
    monkeypatch.setattr(checks, "filesystem_type", lambda path: types.get(str(path)))
    named = [("results_dir", Path("/home")), ("data_dir", Path("/shared")), ("data_dir", Path("/unknown"))]
    (warning,) = checks.sharing_warnings(named)
    assert warning.startswith("results_dir=/home is on ext4")
