"""Reports of running sweeps and of tables, and what the verb refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.store.status import SweepStatus
from sweep.study import report
from tests.fit.planted import TINY, isoflop_points


def status_of(n_finished: int, n_runs: int) -> SweepStatus:
    """Return a status with the finished runs that the page counts."""
    runs = [type("Run", (), {"finished": row < n_finished})() for row in range(n_runs)]
    return type("Status", (), {"runs": runs, "finished": n_finished == n_runs})()


def test_the_page_follows_a_running_sweep_but_not_every_look(monkeypatch, tmp_path):
    written, clock = [], [100.0]
    monkeypatch.setattr(report, "write_page", lambda directory: written.append(clock[0]))
    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    live = report.LivePage(tmp_path)
    for now, n_finished in ((100, 3), (101, 3), (102, 4), (110, 5), (163, 6), (400, 6), (500, 9)):
        clock[0] = float(now)
        live.update(status_of(n_finished, 9))
    assert written == [102.0, 163.0]  # none at the start, none within a minute, none at the end


def test_runs_that_cannot_be_fitted_yet_leave_no_page(tmp_path):
    live = report.LivePage(tmp_path)
    live.update(status_of(0, 9))
    live.update(status_of(1, 9))
    assert not (tmp_path / "report.html").exists()


def test_an_error_of_the_page_never_reaches_the_sweep_and_is_said_once(monkeypatch, tmp_path):
    said, tried, clock = [], [], [0.0]

    def fail(directory):
        tried.append(directory)
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(report, "write_page", fail)
    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    live = report.LivePage(tmp_path, said.append)
    for step in range(4):
        clock[0] += 100.0
        live.update(status_of(step, 9))
    assert len(tried) == 3
    assert len(said) == 1
    assert "report.html cannot be updated (ZeroDivisionError: planted, at test_report.py:" in said[0]
    assert "the sweep goes on" in said[0]


def test_a_table_is_reported_next_to_it(tmp_path):
    points = isoflop_points(
        TINY, np.geomspace(1e11, 1e12, 3), n_sizes=5, span=3, sd=0.003, rng=np.random.default_rng(0)
    )
    rows = [{"n_params": p.n_params, "n_tokens": p.n_tokens, "loss": p.loss} for p in points]
    table = tmp_path / "runs.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    files = report.figure_files(["pdf"], "column")
    config = FitConfig(n_bootstrap=20, methods=("isoflop",))
    page, *figures = report.write_table_report(table, config, files=files)
    assert page == tmp_path / "runs.report.html"
    assert "15 of 15 runs fitted" in page.read_text(encoding="utf-8")
    assert {path.parent for path in figures} == {tmp_path / "runs.figures"}
    assert {path.suffix for path in figures} == {".pdf"}
    with pytest.raises(InputError, match=r"missing\.csv not found"):
        report.write_table_report(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("formats", "width", "message"),
    [
        (["gif"], "screen", "--format gif is not available: choose from png, svg, pdf"),
        ([], "wide", "--width wide is not available: choose from screen, column, two-column"),
    ],
)
def test_other_formats_and_widths_are_refused(formats, width, message):
    with pytest.raises(InputError, match=message):
        report.figure_files(formats, width)


def test_a_directory_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no sweep"):
        report.write_report(tmp_path, files=report.FigureFiles(suffixes=("png",), width="screen"))
    assert list(Path(tmp_path).iterdir()) == []
