"""Trains one run: from its last checkpoint to its end, saving on the way, and the held-out loss there."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from sweep import flops
from sweep.config import RunConfig
from sweep.data.batches import evaluation_windows
from sweep.data.shards import open_prepared
from sweep.errors import Interrupted
from sweep.identity import code_version
from sweep.records import CurvePoint, Placement, RunResult, TrainSession
from sweep.train.checkpoint import load_latest, save_checkpoint
from sweep.train.device import PeakMemory, device_name, model_flops_utilisation
from sweep.train.evaluate import Score, evaluate
from sweep.train.step import without_garbage_collection
from sweep.train.trainer import Trainer

MAX_SAVING_FRAC = 0.02  # of the time between two checkpoints may go into saving one
EXPLODED = 2.0  # a training loss above this many times ln V, a uniform guess, has diverged


def train(run: RunConfig, placement: Placement, session: TrainSession) -> RunResult:
    """Train one run to its end, from its last checkpoint where there is one, and score it.

    Raises Interrupted, its state saved, when the session asks to stop; DataError when the prepared data is
    missing or damaged.
    """
    torch.set_num_threads(placement.n_threads)
    started = time.monotonic()
    memory = PeakMemory(torch.device(placement.device))
    data = open_prepared(placement.data_dir, run.corpus_sha256, run.tokenizer_sha256)
    windows = evaluation_windows(data.heldout, run.model.seq_len, run.evaluation.n_tokens)
    trainer = Trainer(run, placement, data)
    _resume(trainer, session)
    earlier_s = trainer.progress.train_time_s
    with without_garbage_collection():
        reason = _run_to_end(trainer, session)
    train_time_s = trainer.progress.train_time_s
    held_out = None
    if reason is None:
        score = evaluate(trainer.model, windows, on_batch=lambda: session.progress(run.n_steps))
        reason = _held_out_problem(score, run)
        held_out = score if reason is None else None
    n_tokens = trainer.progress.step * run.batch_tokens
    return RunResult(
        status="done" if held_out else "diverged",
        reason=reason,
        loss=held_out.loss if held_out else None,
        loss_stderr=held_out.loss_stderr if held_out else None,
        bits_per_byte=held_out.bits_per_byte if held_out else None,
        train_loss=trainer.tail_loss() if held_out else None,
        n_tokens_unique=trainer.batches.n_tokens_unique(trainer.progress.step),
        evaluation_sha256=windows.sha256,
        wall_time_s=earlier_s + time.monotonic() - started,
        tokens_per_second=n_tokens / train_time_s,
        peak_memory_bytes=memory.bytes(),
        device=device_name(trainer.device),
        torch_version=torch.__version__,
        mfu=model_flops_utilisation(flops.count(run.model, n_tokens).flops, train_time_s, trainer.device),
        mfu_causal=model_flops_utilisation(
            flops.count(run.model, n_tokens).flops_causal, train_time_s, trainer.device
        ),
        curve=tuple(trainer.progress.curve),
    )


def _resume(trainer: Trainer, session: TrainSession) -> None:
    """Go on from the last good checkpoint. One of another code version is left alone: the run restarts."""
    checkpoint = load_latest(session.checkpoint_dir)
    if checkpoint is None:
        return
    if checkpoint.values["code_version"] != code_version():
        session.log({"event": "restarted", "reason": "the checkpoint is of another code version"})
        return
    trainer.restore(checkpoint)
    session.log({"event": "resumed", "step": checkpoint.step})


def _run_to_end(trainer: Trainer, session: TrainSession) -> str | None:
    """Step until the run ends. Returns why it diverged, or None."""
    run, progress = trainer.run, trainer.progress
    started = time.monotonic() - progress.train_time_s
    saved, next_save_s = time.monotonic(), trainer.placement.checkpoint_interval_s
    while progress.step < run.n_steps:
        trainer.step()
        progress.train_time_s = time.monotonic() - started
        session.progress(progress.step)
        if progress.step in trainer.records:
            point = trainer.record()
            session.log(_loggable(point))
            reason = _training_problem(point, run)
            if reason is not None:
                return reason
        stop = session.should_stop() and progress.step < run.n_steps
        if stop or time.monotonic() - saved > next_save_s:
            begun = time.monotonic()
            save_checkpoint(session.checkpoint_dir, trainer.state())
            saved = time.monotonic()
            next_save_s = max(trainer.placement.checkpoint_interval_s, (saved - begun) / MAX_SAVING_FRAC)
        if stop:
            raise Interrupted(f"stopped at step {progress.step} of {run.n_steps}, state saved")
    if trainer.placement.keep_checkpoint:
        save_checkpoint(session.checkpoint_dir, trainer.state())
    return None


def _training_problem(point: CurvePoint, run: RunConfig) -> str | None:
    uniform = math.log(run.model.vocab_size)
    if not math.isfinite(point.train_loss):
        return f"training loss is {point.train_loss} at step {point.step}"
    if point.train_loss > EXPLODED * uniform:
        return (
            f"training loss {point.train_loss:.4g} at step {point.step} is above {EXPLODED:g} times "
            f"ln V = {uniform:.4g}"
        )
    return None


def _held_out_problem(score: Score, run: RunConfig) -> str | None:
    uniform = math.log(run.model.vocab_size)
    if not math.isfinite(score.loss):
        return f"held-out loss is {score.loss}"
    if score.loss > uniform:
        return f"held-out loss {score.loss:.4g} is above ln V = {uniform:.4g}, a uniform guess"
    return None


def _loggable(point: CurvePoint) -> Mapping[str, Any]:
    """A record as JSON can hold it: a loss that is no number becomes null."""
    return {**asdict(point), "train_loss": point.train_loss if math.isfinite(point.train_loss) else None}
