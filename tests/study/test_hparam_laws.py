"""Laws of learning rate and batch from the runs of a sweep, and from tables."""

import csv
import json
from dataclasses import replace

import pytest

from sweep.errors import InputError
from sweep.fit.table.points import Selection
from sweep.store.run_store import Exclusion, RunStore, StoredPoints
from sweep.study.hparam_laws import fit_sweep_hparams, fit_table_hparams, write_hparam_laws
from tests.fit.test_hparam_laws import GRID, planted


def test_runs_of_a_check_are_used_and_excluded_ones_are_not(monkeypatch, tmp_path):
    points = [
        replace(point, run_key=f"run-{at}", name=f"run-{at}", purpose="hparam_check")
        for at, point in enumerate(planted(GRID[::2]))
    ]
    wrong = replace(points[0], run_key="wrong", name="wrong", loss=0.5)
    excluded = [Exclusion(run_key=str(p.run_key), reason="purpose: hparam_check") for p in points]
    excluded.append(Exclusion(run_key="wrong", reason="by hand"))
    stored = StoredPoints(points=(*points, wrong), excluded=tuple(excluded), curves={})
    monkeypatch.setattr(RunStore, "points", lambda self: stored)
    found = fit_sweep_hparams(tmp_path)
    assert found.laws["lr"].n_exponent.value == pytest.approx(-0.713, abs=0.03)
    document = json.loads(write_hparam_laws(tmp_path, found).read_text())
    assert document["rules"] == found.rules
    assert document["laws"]["batch"]["rule"] == found.rules["batch_tokens"]


def test_a_table_with_a_batch_in_sequences(tmp_path):
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["N", "D", "lr", "bs", "loss"])
        for point in planted(GRID[::2]):
            writer.writerow(
                [point.n_params, point.n_tokens, point.lr_peak, point.batch_tokens / 2048, point.loss]
            )
    found = fit_table_hparams(path, batch="bs * 2048")
    assert found.laws["batch"].d_exponent.value == pytest.approx(0.571, abs=0.03)
    assert found.laws["batch"].at(1.0, 2e10) == pytest.approx(0.58 * 2e10**0.571, rel=0.1)
    assert fit_table_hparams(path).rules.keys() == {"optimizer.lr"}
    with pytest.raises(InputError, match="column 'size' not found among lr, bs: give --batch one of them"):
        fit_table_hparams(path, batch="size")
    with pytest.raises(InputError, match="column 'N' is read as n_params: give --lr another one"):
        fit_table_hparams(path, lr="N")
    with pytest.raises(InputError, match="column 'bs' holds no number above 0: give --lr another column"):
        fit_table_hparams(path, lr="bs * 0")
    few = Selection(where="N < 3e8 and D < 3e10")
    with pytest.raises(InputError, match=r"no law: 2 cells have a minimum in learning rate"):
        fit_table_hparams(path, selection=few)
