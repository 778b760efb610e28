"""Arms fitted and drawn side by side: the same files as one after the other."""

import threading
import time
from dataclasses import replace

import pytest

from sweep import cli_running
from sweep.config.compose import compose_experiment
from sweep.errors import InputError
from sweep.fit import DEFAULTS
from sweep.store.run_store import RunStore, StoredPoints
from sweep.study import laws as analysis
from tests.report.figures.planted import planted_sweep


@pytest.fixture
def two_arms(monkeypatch):
    """A store of two arms with planted points, the second's losses higher."""
    points = planted_sweep().points
    arms = [
        replace(
            point,
            arm=arm,
            run_key=f"{arm}-{index}",
            name=f"{arm}-{index}",
            loss=point.loss and point.loss + offset,
        )
        for arm, offset in (("a", 0.0), ("b", 0.3))
        for index, point in enumerate(points)
    ]
    stored = StoredPoints(points=tuple(arms), excluded=(), curves={})
    monkeypatch.setattr(RunStore, "points", lambda self: stored)
    monkeypatch.setattr(RunStore, "write_points", lambda self: ())


@pytest.mark.ci
def test_forks_write_the_same_files(two_arms, tmp_path):
    written = []
    for n_processes in (1, 2):
        directory = tmp_path / str(n_processes)
        config = replace(DEFAULTS, n_bootstrap=0, methods=("isoflop",))
        fits = analysis.fit_sweep(directory, config, n_processes=n_processes)
        assert list(fits) == ["a", "b"]
        drawn = analysis.report(directory, n_processes)
        laws = [analysis.arm_directory(directory, arm) / "fit.json" for arm in fits]
        written.append({path.relative_to(directory): path.read_bytes() for path in (*laws, *drawn)})
    assert written[0] == written[1]
    assert len(written[0]) > 6


def test_fits_wait_for_what_is_loaded_ahead(monkeypatch, tmp_path):
    """A fork beside a thread that imports could wait for that import for ever."""
    loaded, seen = threading.Event(), []
    loader = threading.Thread(target=lambda: (time.sleep(0.2), loaded.set()), name=cli_running.LOADER)

    def fit_arms(*args, **kwargs):
        seen.append(loaded.is_set())
        raise InputError("enough")

    monkeypatch.setattr(analysis, "fit_arms", fit_arms)
    loader.start()
    with pytest.raises(InputError):
        cli_running.fit_and_draw(tmp_path, compose_experiment(["experiment=smoke"]))
    assert seen == [True]
