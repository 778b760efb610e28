"""A train function without torch, with a result that reveals lost and repeated steps, and sweeps of it.

`python -m tests.toy_trainer DIR` is a worker. Environment variables set the seconds per step (TOY_STEP_S) and
the steps between checkpoints (TOY_CHECKPOINT_STEPS), and name files that record each start of a run
(TOY_JOURNAL), each checkpoint (TOY_SAVES) and each worker's deadline (TOY_DEADLINES). TOY_FAULT=KIND:NAME
makes the run NAME fail half-way; several faults are separated by commas.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sweep import flops
from sweep.config import ExperimentConfig, RunConfig
from sweep.errors import DataError, Interrupted
from sweep.launch.process import DEADLINE_VARIABLE, hold_stop_signals
from sweep.records import (
    BOOKKEEPING_COLUMNS,
    CurvePoint,
    Placement,
    Plan,
    PlannedRun,
    RunResult,
    TrainSession,
)
from sweep.store.files import write_atomic
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import main
from tests.configs import tiny_run
from tests.plans import planned


@cache
def toy_experiment() -> ExperimentConfig:
    """The smoke experiment; only its launch settings matter, and its lease never expires in a test."""
    from sweep.config.compose import compose_experiment  # Hydra: not in every worker

    return compose_experiment(["experiment=smoke", "data_dir=unused", "trainer.device=cpu"])


def toy_plan(n_runs: int, n_steps: int = 12, name: str = "toy", **launch: Any) -> Plan:
    """`n_runs` runs of about `n_steps` steps, no two alike."""
    runs = tuple(_planned(index, n_steps + index % 3) for index in range(n_runs))
    base = toy_experiment()
    experiment = replace(base, name=name, launch=replace(base.launch, **launch))
    return Plan(experiment=experiment, runs=runs, dropped=(), warnings=())


def toy_sweep(directory: Path, n_runs: int, n_steps: int = 12, **launch: Any) -> RunStore:
    store = RunStore(directory)
    store.add_plan(toy_plan(n_runs, n_steps, **launch))
    return store


def _planned(index: int, n_steps: int) -> PlannedRun:
    run = tiny_run(name=f"run-{index}", seed=index, n_tokens=64 * n_steps)
    return planned(run)


def science(store: RunStore) -> dict[str, dict[str, Any]]:
    """Every column of every point that must not depend on the execution of the sweep."""
    points = store.points().points
    assert len({point.run_key for point in points}) == len(points)
    return {
        str(point.run_key): {k: v for k, v in point.values().items() if k not in BOOKKEEPING_COLUMNS}
        for point in points
    }


def train(run: RunConfig, placement: Placement, session: TrainSession) -> RunResult:
    """Train with a hash chain over the steps as state: a missing or repeated one changes the loss."""
    _note(f"{run.name}\n")
    _note(f"{run.name} {os.environ.get(DEADLINE_VARIABLE)}\n", "TOY_DEADLINES")
    checkpoint = session.checkpoint_dir / "state.json"
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "chain": run.name}
    every = int(os.environ.get("TOY_CHECKPOINT_STEPS", "3"))
    while state["step"] < run.n_steps:
        time.sleep(float(os.environ.get("TOY_STEP_S", "0")))
        step = state["step"] + 1
        state = {
            "step": step,
            "chain": hashlib.sha256(f"{state['chain']} {step}".encode()).hexdigest(),
            "writer": os.getpid(),
        }
        session.progress(step)
        session.log({"step": step, "train_loss": math.nan if step == 1 else 1.0})
        if step == run.n_steps // 2:
            _fail_if_configured(run.name)
        stop = session.should_stop() and step < run.n_steps
        if stop or step % every == 0:
            write_atomic(checkpoint, json.dumps(state).encode(), durable=False)
            _note(f"{step}\n", "TOY_SAVES")
        if stop:
            raise Interrupted(f"stopped at step {step}")
    return result(run, loss=1 + int(state["chain"][:8], 16) / 16**8)


def result(run: RunConfig, **changes: Any) -> RunResult:
    """A valid result of `run`."""
    n_flops = flops.count(run.model, run.n_tokens).flops
    end = CurvePoint(step=run.n_steps, n_tokens=run.n_tokens, flops=n_flops, train_loss=1.5, lr=0.0)
    sound = RunResult(
        status="done",
        reason=None,
        loss=1.25,
        loss_stderr=0.01,
        bits_per_byte=0.5,
        train_loss=1.5,
        n_tokens_unique=run.n_tokens,
        evaluation_sha256="2" * 64,
        wall_time_s=1.0,
        tokens_per_second=100.0,
        peak_memory_bytes=1,
        device="toy",
        torch_version="none",
        mfu=None,
        curve=(end,),
    )
    return replace(sound, **changes)


def _fail_if_configured(name: str) -> None:
    for fault in os.environ.get("TOY_FAULT", "").split(","):
        kind, _, victim = fault.partition(":")
        if kind and victim == name:
            _FAULTS[kind]()


def _raise(error: BaseException) -> None:
    raise error


_FAULTS: Mapping[str, Any] = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": lambda: time.sleep(3600),
    "leak": lambda: os.kill(os.getpid(), signal.SIGKILL),  # as the kernel ends a process that leaks
    "bug": lambda: _raise(ValueError("a bug\nin two lines")),
    "exit": lambda: _raise(SystemExit(0)),
    "oom": lambda: _raise(MemoryError()),
    "data": lambda: _raise(DataError("the shard is truncated")),
    "disk": lambda: _raise(OSError(28, "No space left on device")),
}


def _note(line: str, variable: str = "TOY_JOURNAL") -> None:
    journal = os.environ.get(variable)
    if journal:
        descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(descriptor, line.encode())
        os.close(descriptor)


if __name__ == "__main__":
    hold_stop_signals()
    sys.exit(main(train=train))
