"""The DuckDB queries in docs/verbs.md, on the files of real sweeps, compared with sweep's own reader."""

from __future__ import annotations

import duckdb
import pytest

from sweep.worker.__main__ import work
from tests.toy_trainer import toy_sweep, train


@pytest.fixture
def sweeps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stores = [toy_sweep(tmp_path / "results" / name, 3) for name in ("demo", "other")]
    for store in stores:
        work(store.sweep_dir, train=train)
        store.write_points()
    return stores


def test_the_points_of_a_sweep(sweeps):
    found = duckdb.sql(
        "select name, n_params, flops, loss from 'results/demo/points.parquet' "
        "where status = 'done' order by loss"
    ).fetchall()
    points = sorted(sweeps[0].points().points, key=lambda point: point.loss)
    assert found == [(point.name, point.n_params, point.flops, point.loss) for point in points]


def test_results_of_all_sweeps_with_their_settings(sweeps):
    found = duckdb.sql(
        "select point.name, point.loss, config.optimizer.lr_peak, len(curve) "
        "from read_json_auto('results/*/runs/*/result.json', union_by_name = true) order by 1, 2"
    ).fetchall()
    expected = [
        (point.name, point.loss, point.lr_peak, len(store.points().curves[point.run_key]))
        for store in sweeps
        for point in store.points().points
    ]
    assert found == sorted(expected)
    assert len(found) == 6
