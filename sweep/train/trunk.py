"""Shared trunk states: saved where other runs branch off, and loaded by the runs that branch there.

Until its decay, a wsd run is the same training as all runs of its trunk. Its own curve and loss sums are
recomputed from the losses of every step, so it ends as if it had been trained alone.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from sweep.config import RunConfig
from sweep.identity import code_version
from sweep.records import CurvePoint, Trunk, trunk_state
from sweep.train.checkpoint import Checkpoint, load_latest, save_checkpoint
from sweep.train.trainer import Trainer, curve_point, record_steps, tail_start


def leave_state(trainer: Trainer) -> None:
    """Store the state for other runs if they branch off after the step just done.

    The state appears by rename. If it cannot be written, the other runs train the trunk themselves.
    """
    trunk, step = trainer.placement.trunk, trainer.progress.step
    if trunk is None or trainer.step_losses is None or step not in trunk.other_steps:
        return
    place = trunk_state(trunk.directory, step)
    if place.is_dir():
        return
    temporary = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with contextlib.suppress(OSError):  # full disk, or another worker stored the same state first
            temporary.mkdir(parents=True)
            save_checkpoint(temporary, _of_trunk(trainer.state(), trunk))
            temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def take_state(run: RunConfig, trunk: Trunk | None, checkpoint_dir: Path) -> int | None:
    """Write the trunk's latest state before the branch into `checkpoint_dir`, as a checkpoint of the run.

    Returns its step; None if there is no such state or the run has a checkpoint. States that are damaged or
    of another code version are deleted.
    """
    if trunk is None or load_latest(checkpoint_dir) is not None:
        return None
    for place in sorted(trunk.directory.glob("step-*"), reverse=True):
        if place.name > trunk_state(trunk.directory, trunk.own_step).name:
            continue
        state = load_latest(place)
        if state is None or not _is_of(state, trunk):
            shutil.rmtree(place, ignore_errors=True)
            continue
        checkpoint = as_branch(run, state)
        if all(math.isfinite(point["train_loss"]) for point in checkpoint.values["curve"]):
            save_checkpoint(checkpoint_dir, checkpoint)
            return state.step
    return None


def _of_trunk(state: Checkpoint, trunk: Trunk) -> Checkpoint:
    """Return the part of a run's state that all runs of the trunk share."""
    own = ("loss_sums", "noise_sums")  # depend on the run's own length
    tensors = {name: tensor for name, tensor in state.tensors.items() if name not in own}
    tensors["step_losses"] = tensors["step_losses"][: state.step]
    values = {**state.values, "curve": [], "trunk": trunk.key}
    return Checkpoint(step=state.step, tensors=tensors, values=values)


def _is_of(state: Checkpoint, trunk: Trunk) -> bool:
    return bool(state.values.get("trunk") == trunk.key and state.values["code_version"] == code_version())


def as_branch(run: RunConfig, state: Checkpoint) -> Checkpoint:
    """Return a trunk's state as the checkpoint that `run` would have written at this step.

    Sums are computed in training's order, so they are bit-identical. Time stays with the run that trained the
    trunk.
    """
    since_record, tail, curve = 0.0, 0.0, list[CurvePoint]()
    records, tail_from = frozenset(record_steps(run.n_steps)), tail_start(run)
    for step, loss in enumerate(state.tensors["step_losses"].tolist()):
        since_record += loss
        if step >= tail_from:
            tail += loss
        if step + 1 in records:
            curve.append(curve_point(run, step + 1, curve[-1].step if curve else 0, since_record))
            since_record = 0.0
    losses = torch.zeros(run.branch_step, dtype=torch.float64)
    losses[: state.step] = state.tensors["step_losses"]
    sums = torch.tensor([since_record, tail], dtype=torch.float64)
    return Checkpoint(
        step=state.step,
        tensors={**state.tensors, "step_losses": losses, "loss_sums": sums},
        values={
            **state.values,
            "curve": [asdict(point) for point in curve],
            "ledger": {},
            "trunk_steps": state.step,
        },
    )
