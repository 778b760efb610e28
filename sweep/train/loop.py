"""Training of one run, from its last checkpoint to its held-out loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from sweep import flops
from sweep.config import RunConfig
from sweep.data.batches import EvaluationWindows
from sweep.data.shards import open_prepared
from sweep.errors import Interrupted
from sweep.identity import code_version
from sweep.records import CurvePoint, Placement, RunResult, SetScore, TrainSession
from sweep.train.checkpoint import Saver, load_latest
from sweep.train.device import (
    PeakMemory,
    device_name,
    initialise_device,
    model_flops_utilisation,
    return_cached_memory,
    return_freed_memory,
)
from sweep.train.evaluate import Score, all_windows
from sweep.train.ranks.team import start_ranks
from sweep.train.step import without_garbage_collection
from sweep.train.time_ledger import TimeLedger
from sweep.train.trainer import Trainer
from sweep.train.trunk import leave_state, take_state

EXPLODED = 2.0  # a training loss above this many times max(ln V, its first record) has diverged


def train(run: RunConfig, placement: Placement, session: TrainSession) -> RunResult:
    """Train one run to its end, from its last checkpoint if there is one, and score it.

    Raises Interrupted, with the state saved, when the session asks to stop; DataError when the prepared data
    is missing or damaged; RankLost when the process of another device of the run died.
    """
    torch.set_num_threads(placement.n_threads)
    device = torch.device(placement.device)
    initialise_device(device, deterministic=placement.deterministic)
    try:
        return _train(run, placement, session, PeakMemory(device))
    finally:
        return_cached_memory(device)


def _train(run: RunConfig, placement: Placement, session: TrainSession, memory: PeakMemory) -> RunResult:
    ledger = TimeLedger()
    data = open_prepared(placement.data_dir, run.corpus_sha256, run.tokenizer_sha256)
    windows, *of_sets = all_windows(run, placement.data_dir, data.heldout)
    with start_ranks(run, placement, session.checkpoint_dir) as ranks:
        trainer = Trainer(run, placement, data, ranks, ledger)
        taken = take_state(run, placement.trunk, session.checkpoint_dir)
        if taken is not None:
            session.log({"event": "branched", "step": taken})
        _resume(trainer, session)
        steps_before, clock = trainer.progress.step, _clock(placement)
        compiled_before, began = trainer.seconds()["compile"], clock()
        with ledger.track("train"), without_garbage_collection():
            reason = _run_to_end(trainer, session)
        compiled = trainer.seconds()["compile"] - compiled_before
        step_s = (clock() - began - compiled) / max(1, trainer.progress.step - steps_before)
        score = None
        if reason is None:
            with ledger.track("evaluate"):
                trainer.take_step.release_memory()
                return_freed_memory()
                score = trainer.score(windows, on_batch=lambda: session.progress(run.n_steps))
            reason = _held_out_problem(score, run)
        sets: list[SetScore] = []
        if reason is None:
            with ledger.track("evaluate"):
                sets = _score_sets(trainer, of_sets, on_batch=lambda: session.progress(run.n_steps))
        result = _result(trainer, windows, score if reason is None else None, reason, memory.bytes(), step_s)
        return replace(result, sets=tuple(sets))


def _score_sets(
    trainer: Trainer, of_sets: Sequence[EvaluationWindows], on_batch: Callable[[], None]
) -> list[SetScore]:
    """Return the score of the final weights on each evaluation set."""
    scores = []
    for number, (one, windows) in enumerate(zip(trainer.run.evaluation.sets, of_sets, strict=True), start=1):
        score = trainer.score(windows, on_batch=on_batch, number=number)
        scores.append(SetScore(name=one.name, evaluation_sha256=windows.sha256, **asdict(score)))
    return scores


def _clock(placement: Placement) -> Callable[[], float]:
    """Return the clock of a step: processor time on one core, which other programs do not lengthen."""
    is_one_core = placement.device == "cpu" and placement.n_threads == 1
    return time.process_time if is_one_core else time.monotonic


def _result(
    trainer: Trainer,
    windows: EvaluationWindows,
    held_out: Score | None,
    reason: str | None,
    peak_bytes: int,
    step_s: float,
) -> RunResult:
    """Return the result to commit; `held_out` is None for a diverged run, and `reason` is why it diverged."""
    run, seconds = trainer.run, trainer.seconds()
    n_tokens = trainer.progress.step * run.batch_tokens
    n_tokens_shared = trainer.progress.trunk_steps * run.batch_tokens
    counted = flops.count(run.model, n_tokens - n_tokens_shared)
    device_s = seconds["train"] * trainer.ranks.n_ranks
    return RunResult(
        status="done" if held_out else "diverged",
        reason=reason,
        loss=held_out.loss if held_out else None,
        loss_stderr=held_out.loss_stderr if held_out else None,
        bits_per_byte=held_out.bits_per_byte if held_out else None,
        train_loss=trainer.tail_loss() if held_out else None,
        n_tokens_unique=trainer.batches.n_tokens_unique(trainer.progress.step),
        evaluation_sha256=windows.sha256,
        wall_time_s=sum(seconds.values()),
        tokens_per_second=(n_tokens - n_tokens_shared) / seconds["train"],
        peak_memory_bytes=peak_bytes,
        device=device_name(trainer.device),
        torch_version=torch.__version__,
        mfu=model_flops_utilisation(counted.flops, device_s, trainer.device),
        mfu_causal=model_flops_utilisation(counted.flops_causal, device_s, trainer.device),
        curve=tuple(trainer.progress.curve),
        b_simple_tokens=trainer.noise.b_simple_tokens() if trainer.noise and held_out else None,
        ledger=seconds,
        choices={
            **trainer.take_step.choices,
            "n_devices": trainer.ranks.n_ranks,
            "parallel": trainer.ranks.name,
        },
        n_tokens_shared=n_tokens_shared,
        step_s=step_s,
    )


def _resume(trainer: Trainer, session: TrainSession) -> None:
    """Resume from the last intact checkpoint. One of another code version is ignored: the run restarts."""
    checkpoint = load_latest(session.checkpoint_dir)
    if checkpoint is None:
        return
    if checkpoint.values["code_version"] != code_version():
        session.log({"event": "restarted", "reason": "the checkpoint is of another code version"})
        return
    trainer.restore(checkpoint)
    session.log({"event": "resumed", "step": checkpoint.step})


def _run_to_end(trainer: Trainer, session: TrainSession) -> str | None:
    """Step until the run ends; return the reason of a divergence, or None."""
    run, progress, placement = trainer.run, trainer.progress, trainer.placement
    saver = Saver(session.checkpoint_dir, placement.checkpoint_interval_s, trainer.n_state_bytes())
    while progress.step < run.n_steps:
        trainer.step()
        session.progress(progress.step)
        if progress.step in trainer.records:
            point = trainer.record()
            with trainer.ledger.track("idle"):
                session.log(_loggable(point))
            reason = _training_problem(point, progress.curve, run)
            if reason is not None:
                return reason
        leave_state(trainer)
        stop = session.should_stop() and progress.step < run.n_steps
        if stop or saver.due():
            _save(trainer, saver)
        if stop:
            raise Interrupted(f"stopped at step {progress.step} of {run.n_steps}, state saved")
    trainer.wait()
    if placement.keep_checkpoint:
        _save(trainer, saver)
    return None


def _save(trainer: Trainer, saver: Saver) -> None:
    trainer.wait()  # steps still queued on a GPU count as training, not saving
    with trainer.ledger.track("checkpoint"):
        saver.save(trainer.state)


def _training_problem(point: CurvePoint, curve: Sequence[CurvePoint], run: RunConfig) -> str | None:
    """Return why `point`, the last of `curve` if finite, means divergence; None if it does not.

    A wide tied model can start far above a uniform guess, so the bound also depends on the first record.
    """
    if not math.isfinite(point.train_loss):
        return f"training loss is {point.train_loss} at step {point.step}"
    uniform, first = math.log(run.model.vocab_size), curve[0].train_loss
    if point.train_loss <= EXPLODED * max(uniform, first):
        return None
    measure = f"ln V = {uniform:.4g}" if uniform >= first else f"its first record, {first:.4g}"
    return f"training loss {point.train_loss:.4g} at step {point.step} is above {EXPLODED:g} times {measure}"


def _held_out_problem(score: Score, run: RunConfig) -> str | None:
    uniform = math.log(run.model.vocab_size)
    if not math.isfinite(score.loss):
        return f"held-out loss is {score.loss}"
    if score.loss > uniform:
        return f"held-out loss {score.loss:.4g} is above ln V = {uniform:.4g}, a uniform guess"
    return None


def _loggable(point: CurvePoint) -> Mapping[str, Any]:
    """Return a record for JSON: a loss that is not finite becomes null."""
    return {**asdict(point), "train_loss": point.train_loss if math.isfinite(point.train_loss) else None}
