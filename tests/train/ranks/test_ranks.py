"""Several processes train one run together: the losses of one process, whatever is spread over them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import replace

import psutil
import pytest
import torch

from sweep.config.compose import compose_experiment
from sweep.errors import InputError, Interrupted, RankLost
from sweep.plan.devices import check_devices, is_sharded
from sweep.records import Plan
from sweep.store.attempts.failures import classify
from sweep.store.run_store import RunStore
from sweep.train.checkpoint import load_latest
from sweep.train.loop import train
from sweep.train.ranks.base import ALONE, Ranks
from sweep.train.trainer import Trainer
from sweep.worker.__main__ import work
from tests.plans import planned
from tests.train.sessions import Session, placement, run_on

REL = 1e-5  # of a loss, fp32
N_STEPS = 12


@pytest.fixture
def run(corpus):
    run = run_on(corpus, n_tokens=256 * N_STEPS)
    return replace(run, model=replace(run.model, tied=False, activation="swiglu"))


def losses(result):
    return [result.loss, result.train_loss, *(point.train_loss for point in result.curve)]


def children():
    """Ranks that are alive; other tests of this process may have left something else."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [process] if "sweep.train.rank" in process.cmdline() else []
    return found


@pytest.mark.ci
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_give_the_losses_of_one_and_may_become_one(corpus, tmp_path, run, parallel):
    one = train(run, placement(corpus), Session(tmp_path))
    assert len(one.curve) == N_STEPS
    together = placement(corpus, n_devices=2, parallel=parallel, micro_batch_size=3)
    cut = tmp_path / "cut"
    cut.mkdir()
    with pytest.raises(Interrupted, match=f"stopped at step 5 of {N_STEPS}, state saved"):
        train(run, together, Session(cut, stop_after=5))
    assert load_latest(cut).tensors["model.head.weight"].shape == (256, 24)
    shutil.copytree(cut, tmp_path / "alone")
    two = train(run, together, Session(cut))
    alone = train(run, placement(corpus), Session(tmp_path / "alone"))
    for result in (two, alone):
        assert losses(result) == pytest.approx(losses(one), rel=REL)
        assert result.loss_stderr == pytest.approx(one.loss_stderr, rel=1e-4)
        assert [p.flops for p in result.curve] == [p.flops for p in one.curve]
    assert two.choices == {
        "micro_batch_size": 2,
        "n_devices": 2,
        "parallel": parallel,
    }  # its rows in equal parts
    assert alone.choices == {"micro_batch_size": 2, "n_devices": 1, "parallel": "none"}
    assert not torch.distributed.is_initialized()
    assert children() == []


@pytest.mark.ci
@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_ranks_with_flat_updates_of_other_optimizers_agree_with_one(corpus, tmp_path, run, name):
    momentum = {"momentum": 0.9, "nesterov": True}
    run = replace(run, optimizer=replace(run.optimizer, name=name, **momentum), n_tokens=256 * 6)
    one = train(run, placement(corpus), Session(tmp_path / "one"))
    two = train(run, placement(corpus, n_devices=2, parallel="ddp"), Session(tmp_path / "two"))
    (one_losses, two_losses) = ([point.train_loss for point in result.curve] for result in (one, two))
    assert len(one_losses) == 6
    assert two_losses == pytest.approx(one_losses, rel=1e-3 if name == "muon" else REL)


@pytest.mark.ci
def test_a_worker_carries_out_a_plan_on_two_processes(corpus, tmp_path, run):
    keys = ["trainer.device=cpu", "trainer.n_devices=2", f"data_dir={corpus.directory.parents[1]}"]
    experiment = compose_experiment(["experiment=smoke", *keys])
    RunStore(tmp_path).add_plan(Plan(experiment=experiment, runs=(planned(run),), dropped=(), warnings=()))
    assert work(tmp_path, train=train).n_done == 1
    stored = json.loads(next(tmp_path.glob("runs/*/result.json")).read_text())
    assert stored["choices"]["parallel"] == "ddp"
    shown = RunStore(tmp_path).status().to_json()
    assert shown["ledger"] == shown["runs"][0]["ledger"] == stored["ledger"]
    assert sum(stored["ledger"].values()) == pytest.approx(stored["point"]["wall_time_s"])


class Killing(Session):
    """Kills a rank after two steps, from outside."""

    def progress(self, step):
        super().progress(step)
        if step == 2:
            for process in children():
                os.kill(process.pid, signal.SIGKILL)


@pytest.mark.ci
def test_a_dead_rank_ends_the_attempt_in_one_sentence(corpus, tmp_path, run):
    begun = time.monotonic()
    with pytest.raises(RankLost, match=r"^rank 1 of 2 ended with exit code -9$"):
        train(run, placement(corpus, n_devices=2), Killing(tmp_path))
    assert classify(RankLost("rank 1 of 2 ended"))[0] == "failed:host"
    assert time.monotonic() - begun < 40
    assert children() == []


@pytest.mark.ci
def test_a_rank_that_cannot_start_says_why(corpus, tmp_path, run, monkeypatch):
    def misled(own, **changes):
        return replace(own, data_dir=tmp_path / "nothing", **changes)

    monkeypatch.setattr("sweep.train.ranks.team.replace", misled)
    with pytest.raises(RankLost, match=r"rank 1 of 2 failed: DataError: .*is not prepared"):
        train(run, placement(corpus, n_devices=2), Session(tmp_path))


@pytest.mark.parametrize("sharded", [False, True])
def test_sharded_passes_keep_no_narrow_copies_of_whole_weights(corpus, run, monkeypatch, sharded):
    """Autocast would keep one of each gathered weight until the end of the pass."""
    run, ranks, seen = replace(run, precision="bf16"), Ranks(), []
    ranks.sharded = sharded
    step = Trainer(run, placement(corpus), corpus, ranks).take_step
    total_loss = step.model.total_loss

    def watched(*arguments):
        seen.append(torch.is_autocast_cache_enabled())
        return total_loss(*arguments)

    monkeypatch.setattr(step.model, "total_loss", watched)
    step(0)
    assert set(seen) == {not sharded}


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("n_sequences", [5, 8, 64])
def test_shares_are_a_partition_and_nearly_equal(n_ranks, n_sequences):
    shares = []
    for rank in range(n_ranks):
        ranks = Ranks()
        ranks.rank, ranks.n_ranks = rank, n_ranks
        shares.append(ranks.share(n_sequences))
    assert [i for share in shares for i in share] == list(range(n_sequences))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert ALONE.share(n_sequences) == range(n_sequences)


def test_impossible_shares_are_refused(run):
    with pytest.raises(InputError, match=r"n_devices=9 is more than the 8 sequences"):
        check_devices(run, 9, "auto")
    with pytest.raises(InputError, match=r"do not divide by trainer\.n_devices=3"):
        check_devices(run, 3, "fsdp")
    check_devices(run, 3, "ddp")


def test_weights_are_spread_when_one_device_cannot_hold_them(run):
    assert not is_sharded(run, 2, "auto", 10**9, "cuda")
    assert is_sharded(run, 2, "auto", 10**6, "cuda")
    assert not is_sharded(run, 3, "auto", 10**6, "cuda")  # unequal shares
    assert is_sharded(run, 2, "fsdp", 10**9, "cuda")
    muon = replace(run, optimizer=replace(run.optimizer, name="muon"))
    assert not is_sharded(muon, 2, "auto", 10**6, "cuda")  # it needs whole matrices
