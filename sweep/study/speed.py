"""The speed of this machine in plans: measured before the first plan that needs it, improved by its runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from sweep.config import ExperimentConfig
from sweep.config.places import sweep_directory
from sweep.machine.devices import gpus
from sweep.machine.speed import MAX_SHAPES, MEASURE, known_speed, may_measure, measure_speed, remember
from sweep.machine.workers import worker_count
from sweep.plan.devices import DeviceType, planned_device, with_precision
from sweep.plan.speed import Speed, StepTime, step_terms, to_measure, with_speed
from sweep.records import Plan
from sweep.store.plans import run_directory
from sweep.store.points import ResultError, read_result
from sweep.store.run_store import RunStore


def device_of(experiment: ExperimentConfig) -> DeviceType:
    """Return the type of device that workers of the experiment use, started on this machine."""
    asks = experiment.trainer.device == "auto" and experiment.launch.name == "local"
    return planned_device(experiment, has_gpu=asks and bool(gpus()))


def machine_speed(experiment: ExperimentConfig) -> Speed | None:
    """Return what is known of the speed of the experiment's workers; None unless they run on this machine."""
    if experiment.launch.name != "local" or experiment.trainer.n_devices > 1:
        return None
    device = device_of(experiment)
    return known_speed(device, with_precision(experiment, device).precision)


def measured(plans: Sequence[Plan], on_notice: Callable[[str], None]) -> list[Plan]:
    """Return the plans with the speed of this machine, measured now for shapes without a similar one.

    `on_notice` gets a sentence before a measurement. Nothing is measured for workers elsewhere, where the
    experiment gives `estimate.flops_per_second`, or where `may_measure` is false.
    """
    experiment = plans[0].experiment
    is_local = experiment.launch.name == "local" and experiment.trainer.n_devices == 1
    if experiment.estimate.flops_per_second is not None or not is_local or not may_measure():
        return list(plans)
    store, device = RunStore(sweep_directory(experiment)), device_of(experiment)
    todo = [run for plan in plans for run in plan.runs if not store.has_result(run.run_key)]
    speed = machine_speed(experiment)
    shapes = to_measure(todo, speed, MAX_SHAPES)
    if shapes:
        on_notice(f"measuring the speed of this machine for {len(shapes)} shapes, up to 10 s")
        speed = measure_speed(
            shapes,
            device,
            with_precision(experiment, device).precision,
            n_workers=worker_count(plans).n_workers,
            micro_batch_size=experiment.trainer.micro_batch_size,
        )
    return [with_speed(plan, speed, device) for plan in plans]


def speed_remedy(experiment: ExperimentConfig) -> str:
    """Return what makes the speed of the experiment's workers known where it is not."""
    assumed = "set estimate.flops_per_second to that of a worker"
    if experiment.launch.name != "local" or experiment.trainer.n_devices > 1:
        return assumed
    if os.environ.get(MEASURE, "1") == "0":
        return f"unset {MEASURE}, or {assumed}"
    return assumed if may_measure() else f"install torch here, or {assumed}"


def learn(plans: Iterable[Plan], store: RunStore, trained: Iterable[str]) -> None:
    """Keep the speed of the runs with the keys `trained`, for later plans.

    Only of workers on this machine that did not share a device: others say nothing about a worker alone.
    """
    keys = set(trained)
    if not keys or not may_measure():
        return
    for plan in plans:
        experiment = plan.experiment
        counted = worker_count([plan])
        if experiment.launch.name != "local" or experiment.trainer.n_devices > 1 or counted.shares_devices:
            continue
        steps = []
        for run in plan.runs:
            if run.run_key not in keys:
                continue
            try:
                stored = read_result(run_directory(store.sweep_dir, run.run_key) / "result.json", run.run_key)
            except ResultError:
                continue
            if stored.step_s is not None:
                terms = step_terms(run.config, run.config.batch_tokens)
                steps.append(StepTime(terms=terms, tokens=run.config.batch_tokens, seconds=stored.step_s))
        remember(steps, device_of(experiment), plan.runs[0].config.precision)
