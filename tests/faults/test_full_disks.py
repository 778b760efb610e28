"""Full and failing disks: the last checkpoint loads, the run ends in failed:disk, others continue."""

import errno
import os
import resource
import subprocess
from dataclasses import replace

import pytest
import torch

from sweep.config.compose import compose_experiment
from sweep.config.places import sweep_directory
from sweep.errors import InputError, SafetyError
from sweep.plan.estimate import disk_bytes
from sweep.store import files
from sweep.store.files import read_json
from sweep.store.run_store import RunStore
from sweep.study.checks import check_space
from sweep.study.plan import plan_experiment
from sweep.study.run import run_experiment
from sweep.train.checkpoint import Checkpoint, load_latest, save_checkpoint
from sweep.worker.__main__ import main
from tests import toy_trainer
from tests.faults.processes import start
from tests.toy_trainer import science, toy_sweep

STEPS = 8


def train(run, placement, session, n_numbers=16):
    """Toy training with real checkpoints of `n_numbers` floats every two steps."""
    found = load_latest(session.checkpoint_dir)
    done = found.step if found else 0
    for step in range(done + 1, STEPS + 1):
        session.progress(step)
        session.log({"step": step})
        if step % 2 == 0:
            save_checkpoint(
                session.checkpoint_dir, Checkpoint(step=step, tensors=weights(step, n_numbers), values={})
            )
    return toy_trainer.result(run, loss=1 + run.seed / 8)


def weights(step, n_numbers):
    return {"w": torch.full((n_numbers,), float(step))}


class FullDisk:
    """Refuses bytes and new files from the `at`-th write on; renames still work."""

    def __init__(self, at, number):
        self.at, self.number = at, number
        self.count, self.has_room = 0, False
        self._open, self._write = os.open, os.write

    def install(self, patch):
        patch(os, "write", self._refuse_write)
        patch(os, "open", self._refuse_creation)

    @property
    def refuses(self):
        return not self.has_room and 0 < self.at <= self.count

    def _refuse_write(self, *args):
        self.count += 1
        if self.refuses:
            raise OSError(self.number, os.strerror(self.number))
        return self._write(*args)

    def _refuse_creation(self, path, flags, *args, **kwargs):
        if self.refuses and flags & os.O_CREAT:
            raise OSError(self.number, os.strerror(self.number))
        return self._open(path, flags, *args, **kwargs)


def writes_of_one_run(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        disk = FullDisk(0, 0)
        disk.install(patch.setattr)
        main([str(toy_sweep(tmp_path / "count", 1).sweep_dir)], train=train)
    return disk.count


def saved_steps(attempt):
    return sorted(int(path.stem[5:]) for path in (attempt / "checkpoint").glob("step-*.json"))


@pytest.mark.parametrize("number", [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.ci)])
def test_a_disk_that_refuses_every_write_from_any_on(tmp_path, monkeypatch, measured, number):
    calm = toy_sweep(tmp_path / "calm", 2)
    main([str(calm.sweep_dir)], train=train)
    n_writes = writes_of_one_run(tmp_path, monkeypatch)
    n_failed = 0
    for at in range(1, n_writes + 1):
        store = toy_sweep(tmp_path / str(at), 2)
        with monkeypatch.context() as patch:
            FullDisk(at, number).install(patch.setattr)
            assert main([str(store.sweep_dir)], train=train) == 1
        first = store.entries()[0]
        attempt = store.sweep_dir / "runs" / first.run_key / "attempts" / "1"
        committed = (attempt.parents[1] / "result.json").exists()  # only end.json was refused
        failed = attempt.is_dir() and not committed  # otherwise even the claim was refused
        if failed:
            n_failed += 1
            assert store.status().runs[0].status == "failed:disk"
            steps = saved_steps(attempt)
            found = load_latest(attempt / "checkpoint")
            assert (found.step if found else None) == (steps[-1] if steps else None)
            assert found is None or torch.equal(found.tensors["w"], weights(found.step, 16)["w"])
        assert main([str(store.sweep_dir)], train=train) == int(failed)
        assert store.status().runs[1].status == "done"
        store.retry(first.run_key)
        assert main([str(store.sweep_dir)], train=train) == 0
        assert science(store) == science(calm), f"write {at}"
    assert n_failed >= n_writes - 8  # the others belong to the claim, or follow the commit
    name = errno.errorcode[number]
    measured(
        f"{name} at every write", f"{n_writes} of {n_writes} writes, {n_failed} in a run, all failed:disk"
    )


def fat_train(run, placement, session):
    """Checkpoints of run-0 do not fit."""
    return train(run, placement, session, n_numbers=400_000 if run.name == "run-0" else 16)


def _work_limited(sweep_dir, max_bytes):
    if max_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    os._exit(main([str(sweep_dir)], train=fat_train))


@pytest.fixture
def tiny_tmpfs(tmp_path):
    directory = tmp_path / "tmpfs"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs may only be mounted by root")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def check_only_the_fat_run_fails(sweep_dir, max_bytes):
    store = toy_sweep(sweep_dir, 4)
    process = start(_work_limited, sweep_dir, max_bytes)
    process.join(60)
    assert process.exitcode == 1
    shown = {run.name: run.status for run in store.status().runs}
    assert shown == {"run-0": "failed:disk", "run-1": "done", "run-2": "done", "run-3": "done"}
    [failed] = [run for run in store.status().runs if run.name == "run-0"]
    attempt = sweep_dir / "runs" / failed.run_key / "attempts" / "1"
    assert (read_json(attempt / "end.json") or {})["state"] == "failed:disk"
    assert list((attempt / "checkpoint").iterdir()) == []  # no partial file is left


def test_a_file_that_may_not_grow_fails_its_run_alone(tmp_path, measured):
    check_only_the_fat_run_fails(tmp_path / "sweep", 1_000_000)
    measured("a file-size limit", "the run failed:disk, 3 of 3 others done")


@pytest.mark.ci
def test_a_full_tmpfs_fails_its_run_alone(tiny_tmpfs, measured):
    check_only_the_fat_run_fails(tiny_tmpfs / "sweep", 0)
    measured("a full tmpfs", "the run failed:disk, 3 of 3 others done")


@pytest.mark.parametrize("results_dir", ["/proc/r", "/dev/null/r"])
def test_results_that_cannot_be_written_are_refused_before_data_is_prepared(results_dir, tmp_path):
    experiment = compose_experiment(
        ["experiment=smoke", f"results_dir={results_dir}", f"data_dir={tmp_path / 'd'}"]
    )
    with pytest.raises(InputError, match=f"results_dir={results_dir} cannot be written"):
        run_experiment(experiment)
    assert not (tmp_path / "d").exists()


def test_a_sweep_that_may_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch, measured):
    experiment = compose_experiment(
        [
            "experiment=smoke",
            f"results_dir={tmp_path / 'r'}",
            f"data_dir={tmp_path / 'd'}",
            "launch.n_workers=2",
        ]
    )
    drawn = plan_experiment(experiment)
    needed = disk_bytes([run.config for run in drawn.runs], 2, keep_checkpoint=False)
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    usage.free = 1.2 * needed - 1
    with pytest.raises(SafetyError, match=r"MB of free disk space, but the sweep may write .* MB") as refused:
        run_experiment(experiment)
    assert refused.value.exit_code == 3
    assert not (tmp_path / "r").exists()
    usage.free = 1.2 * needed + 1
    store = RunStore(sweep_directory(experiment))
    check_space([drawn], store)
    kept = replace(experiment, trainer=replace(experiment.trainer, keep_checkpoint=True))
    with pytest.raises(SafetyError):
        check_space([replace(drawn, experiment=kept)], store)
    measured("free space below 1.2 x the estimate", "refused, exit code 3, nothing written")
