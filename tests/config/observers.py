"""Effects of the sections fit, launch, tracking and store, seen without a cluster or a service."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from sweep.config import ExperimentConfig
from sweep.errors import InputError, SafetyError
from sweep.fit import Refusal, fit
from sweep.launch import local, ray, slurm
from sweep.launch.choose import make_launcher
from sweep.launch.spec import LaunchSpec
from sweep.records import Point, TrackedRun
from sweep.store.files import read_json
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import index_packages, index_url
from sweep.study.predictions import predict
from sweep.tracking.base import track
from sweep.worker import __main__ as worker
from tests.fit.one_method import answer
from tests.fit.planted import TINY, isoflop_points
from tests.toy_trainer import toy_plan

BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12)
OUTLIER = 12  # a middle size of the second budget
FAKES = Path(__file__).parent / "fakes"
RUN = TrackedRun(
    sweep_dir=Path("not-a-directory"), sweep_name="demo", run_key="0" * 16, run_name="run", config={}
)


@cache
def table() -> tuple[Point, ...]:
    """Noisy points of a planted law, one of them an outlier, with embeddings and repeated tokens."""
    points = isoflop_points(TINY, BUDGETS, n_sizes=9, span=4, sd=0.003, rng=np.random.default_rng(3))
    points = tuple(
        replace(
            point,
            n_params_non_embedding=(point.n_params or 0) - 1000,  # no power law of N
            n_tokens_unique=min(point.n_tokens or 0, 1e7),
            schedule="cosine",
        )
        for point in points
    )
    outlier = replace(points[OUTLIER], loss=1.08 * (points[OUTLIER].loss or 0))
    return (*points[:OUTLIER], outlier, *points[OUTLIER + 1 :])


def fit_effect(experiment: ExperimentConfig) -> Any:
    """Predictions of every fitted method at 10 times the largest budget, or the kinds of the refusals."""
    return _predictions(experiment, table())


def law_effect(experiment: ExperimentConfig) -> Any:
    """The optimum of one method's law, without the backtest of `fit`, which is slow for some methods."""
    [method] = experiment.fit.methods or ()
    law = answer(table(), method, experiment.fit)
    return law.kind if isinstance(law, Refusal) else _rounded({"": law.estimate("n_params_opt", BUDGETS[-1])})


def mixed_fit_effect(experiment: ExperimentConfig) -> Any:
    """The same for points of two schedules."""
    first, *rest = table()
    return _predictions(experiment, (replace(first, schedule="wsd"), *rest))


def _predictions(experiment: ExperimentConfig, points: tuple[Point, ...]) -> Any:
    fitted = fit(points, experiment.fit)
    (prediction,) = predict(fitted, (10 * BUDGETS[-1],), settings=experiment.fit)
    return {
        name: found.kind if isinstance(found, Refusal) else (_rounded(found.estimate), _rounded(found.ci))
        for name, found in prediction.methods.items()
    }


def _rounded(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return numbers and pairs of numbers to six digits, since a difference in rounding is no effect."""
    return {name: [f"{number:.6g}" for number in np.atleast_1d(value)] for name, value in values.items()}


def launch_effect(experiment: ExperimentConfig) -> Any:
    """Return the processes, the sbatch script, or the Ray options and tasks that a launcher starts."""
    calls: list[Any] = []
    with tempfile.TemporaryDirectory() as directory, _recorded(calls):
        spec = LaunchSpec(sweep_dir=f"{directory}/sweep", device="cpu")
        try:
            make_launcher(experiment.launch, spec).start()
        except (InputError, SafetyError):
            calls.append("refused")
        script = Path(spec.sweep_dir) / "slurm.sh"
        text = script.read_text() if script.exists() else ""
        return [_without(directory, call) for call in (*calls, text)]


def _without(directory: str, call: Any) -> str:
    """Return a call as text, without the words that differ between two directories."""
    words = [word for word in call if "name=" not in word] if isinstance(call, list) else call
    return str(words).replace(directory, "DIR").replace(Path(directory).name, "DIR")


@contextmanager
def _recorded(calls: list[Any]) -> Iterator[None]:
    """Record in `calls` what launchers start, in place of starting it."""

    def tool(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    def process(command: list[str], **options: Any) -> SimpleNamespace:
        calls.append(("process", options["env"]["OMP_NUM_THREADS"]))
        return SimpleNamespace(pid=-1, poll=lambda: None)  # no process has this id

    with (
        patch.object(slurm, "check_tools"),
        patch.object(slurm, "run_tool", tool),
        patch.object(local, "subprocess", SimpleNamespace(Popen=process, PIPE=-1, STDOUT=-2)),
        patch.object(ray, "_ray_version", lambda: "2.60.0"),
        patch.dict(sys.modules, {"ray": _fake_ray(calls)}),
        patch.dict(os.environ, {"OWN_VARIABLE": "1"}),
    ):
        os.environ.pop("RAY_AUTH_MODE", None)
        yield


def _fake_ray(calls: list[Any]) -> ModuleType:
    module = ModuleType("ray")
    module.__spec__ = ModuleSpec("ray", None)
    task = SimpleNamespace(remote=lambda *arguments: calls.append(("task", *arguments)))
    remote = SimpleNamespace(options=lambda **options: calls.append(("options", options)) or task)
    module.__dict__.update(
        is_initialized=lambda: False,
        init=lambda **options: calls.append(("init", options)),
        remote=lambda function: remote,
    )
    return module


def worker_effect(experiment: ExperimentConfig) -> Any:
    """The lease of each attempt at a run that always fails, its stall limit, and if its curve is compared."""
    stalls, watches = [], []

    def fail(run: Any, placement: Any, session: Any) -> Any:
        watches.append(session._watch is not None)
        raise ValueError("a fault of every attempt")

    class Heartbeat(worker.Heartbeat):
        def __init__(self, attempt: Any, **options: Any) -> None:
            stalls.append(options["stall_s"])
            super().__init__(attempt, **options)

    with tempfile.TemporaryDirectory() as directory, patch.object(worker, "Heartbeat", Heartbeat):
        plan = toy_plan(1)
        store = RunStore(Path(directory) / "sweep")
        trainer = replace(plan.experiment.trainer, stop_outliers=experiment.trainer.stop_outliers)
        of_case = replace(plan.experiment, launch=experiment.launch, trainer=trainer)
        store.add_plan(replace(plan, experiment=of_case))
        worker.work(store.sweep_dir, train=fail)
        claims = sorted(store.sweep_dir.glob("runs/*/attempts/*/claim.json"))
        return [(read_json(path) or {})["lease_s"] for path in claims], stalls, watches


def tracking_effect(experiment: ExperimentConfig) -> Any:
    """The arguments that `wandb.init` gets for a run."""
    wandb = _fake_wandb()
    path = os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")]))
    with patch.dict(sys.modules, {"wandb": wandb}), patch.dict(os.environ, {"PYTHONPATH": path}):
        os.environ.pop("WANDB_MODE", None)
        track(experiment.tracking, RUN)
    return wandb.STARTED


def _fake_wandb() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wandb", FAKES / "wandb.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def index_effect(experiment: ExperimentConfig) -> Any:
    """The database of the copy, and the packages that it needs."""
    with patch.dict(os.environ):
        os.environ.pop("SWEEP_INDEX_URL", None)
        return index_url(experiment.store), index_packages(experiment.store)
