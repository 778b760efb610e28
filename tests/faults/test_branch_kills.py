"""Kills of the whole process tree of a real sweep with cooldown branches: points as of an undisturbed one."""

from __future__ import annotations

import random
import subprocess
import time

import pandas as pd
import pytest

from sweep.records import BOOKKEEPING_COLUMNS
from tests.shell import command, environment, sweep
from tests.study.test_run import SMALL, kill_tree

BRANCHED = (*SMALL, "schedule=wsd_branches", "budgets=[5e8,1e9,4e9]", "trainer.checkpoint_interval_s=0.2")


def points(directory):
    table = pd.read_csv(directory / "results/smoke/points.csv").sort_values("run_key").reset_index(drop=True)
    return table.drop(columns=list(BOOKKEEPING_COLUMNS)), table


@pytest.mark.long
@pytest.mark.timeout(600)
def test_kills_cost_no_branch_its_result(tmp_path):
    generator = random.Random(3)
    overrides = [*BRANCHED, f"data_dir={tmp_path / 'data'}"]
    for name in ("calm", "stormy"):
        (tmp_path / name).mkdir()
    done = sweep("run", *overrides, cwd=tmp_path / "calm")
    assert done.returncode == 0, done.stderr
    for _ in range(6):
        process = subprocess.Popen(
            command("run", *overrides),
            cwd=tmp_path / "stormy",
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        time.sleep(generator.uniform(2, 6))
        kill_tree(process)
    done = sweep("run", *overrides, cwd=tmp_path / "stormy")
    assert done.returncode == 0, done.stderr
    (calm, table), (stormy, _) = (points(tmp_path / name) for name in ("calm", "stormy"))
    pd.testing.assert_frame_equal(calm, stormy)
    assert table.groupby("trunk").size().tolist() == [3] * 4
    for _, runs in table.groupby("trunk"):  # the longest pays in full, the others for their decay
        spent = (runs["flops_spent"] / runs["flops"]).tolist()
        assert spent[runs["flops"].argmax()] == 1.0
        assert sorted(spent)[:2] == pytest.approx([0.2, 0.2], abs=0.02)
    assert not list((tmp_path / "stormy").glob("results/smoke/trunks/*"))
