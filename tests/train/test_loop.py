"""Training of one run: against a plain loop, across interruptions, and on divergence."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace

import pytest
import torch

from sweep.config import EvaluationConfig
from sweep.data.batches import TrainBatches, evaluation_windows
from sweep.errors import DataError, Interrupted
from sweep.records import BOOKKEEPING_COLUMNS, CurvePoint
from sweep.train.checkpoint import load_latest
from sweep.train.loop import _training_problem, train
from sweep.train.models.gpt import GPT
from sweep.train.trainer import Trainer, record_steps
from tests.train.sessions import Session, placement, run_on

MEASURED = BOOKKEEPING_COLUMNS | {"curve", "ledger", "step_s"}


def science(result):
    values = {name: getattr(result, name) for name in type(result).__slots__}
    return {name: value for name, value in values.items() if name not in MEASURED} | {
        "curve": [(p.step, p.train_loss, p.lr) for p in result.curve]
    }


def test_a_run_equals_a_plain_loop(corpus, tmp_path):
    """Trains on the same batches with torch's AdamW and a plain cosine, without the package's loop."""
    run = run_on(corpus)
    result = train(run, placement(corpus), Session(tmp_path))
    model = GPT(run.model)
    model.initialise(torch.Generator().manual_seed(run.seed))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    batches = TrainBatches(corpus.train, 32, 8, run.seed)
    losses = []
    for step in range(60):
        tokens = torch.from_numpy(batches.at(step))
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 256), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        frac = (step + 1) / 4 if step < 4 else (1 + math.cos(math.pi * (step - 4) / 56)) / 2
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * frac
        optimizer.step()
        losses.append(loss.item())
    windows = evaluation_windows(corpus.heldout, 32, EvaluationConfig(n_tokens=4096))
    tokens = torch.from_numpy(windows.tokens)
    with torch.no_grad():
        logits = model(tokens[:, :-1]).reshape(-1, 256).double()
    held_out = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].reshape(-1)).item()
    assert result.curve[0].train_loss == pytest.approx(losses[0], rel=1e-5)
    assert result.curve[1].train_loss == pytest.approx(losses[1], rel=1e-5)
    assert result.loss == pytest.approx(held_out, rel=1e-5)
    assert result.train_loss == pytest.approx(sum(losses[-6:]) / 6, rel=1e-5)
    assert result.bits_per_byte == pytest.approx(held_out * 4096 / math.log(2) / windows.n_bytes, rel=1e-5)


@pytest.mark.parametrize("stops", [[1], [5, 6, 59]])
def test_resuming_is_bit_equal(corpus, tmp_path, stops):
    run = run_on(corpus)
    whole = train(run, placement(corpus), Session(tmp_path / "whole"))
    for stop in stops:
        (tmp_path / "cut").mkdir(exist_ok=True)
        session = Session(tmp_path / "cut", stop_after=stop)
        with pytest.raises(Interrupted, match=f"stopped at step {stop} of 60, state saved"):
            train(run, placement(corpus), session)
        assert session.steps[-1] == stop
    resumed = train(run, placement(corpus), Session(tmp_path / "cut"))
    assert science(resumed) == science(whole)


def test_restored_state_is_the_saved_state(corpus, tmp_path):
    run = run_on(corpus)
    with pytest.raises(Interrupted):
        train(run, placement(corpus), Session(tmp_path, stop_after=23))
    checkpoint = load_latest(tmp_path)
    trainer = Trainer(run, placement(corpus), corpus)
    trainer.restore(checkpoint)
    again = trainer.state()
    assert again.step == 23
    assert again.values | {"ledger": None} == checkpoint.values | {"ledger": None}
    assert again.tensors.keys() == checkpoint.tensors.keys()
    for name, tensor in again.tensors.items():
        assert torch.equal(tensor, checkpoint.tensors[name]), name


def test_a_checkpoint_of_another_code_version_is_left_alone(corpus, tmp_path, monkeypatch):
    run = run_on(corpus)
    with pytest.raises(Interrupted):
        train(run, placement(corpus), Session(tmp_path, stop_after=23))
    monkeypatch.setattr("sweep.train.loop.code_version", lambda: "another")
    session = Session(tmp_path)
    train(run, placement(corpus), session)
    assert session.steps[0] == 1
    assert session.records[0]["event"] == "restarted"


def test_micro_batches_change_nothing_but_rounding(corpus, tmp_path):
    run = run_on(corpus)
    whole = train(run, placement(corpus), Session(tmp_path))
    for micro in (3, 100):
        parts = train(run, placement(corpus, micro_batch_size=micro), Session(tmp_path))
        assert parts.loss == pytest.approx(whole.loss, rel=2e-4)
        assert [p.flops for p in parts.curve] == [p.flops for p in whole.curve]


def test_seeds_differ_and_repeat(corpus, tmp_path):
    losses = [train(run_on(corpus, seed=s), placement(corpus), Session(tmp_path)).loss for s in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


def test_training_learns_and_bf16_agrees_roughly(corpus, tmp_path):
    full = train(run_on(corpus), placement(corpus), Session(tmp_path))
    half = train(run_on(corpus, precision="bf16"), placement(corpus), Session(tmp_path))
    assert full.loss < 3.2 < full.curve[0].train_loss
    assert half.loss == pytest.approx(full.loss, rel=0.02)


@pytest.mark.parametrize("lr_peak", [10.0, 1e4])
def test_an_absurd_learning_rate_diverges_within_an_interval(corpus, tmp_path, lr_peak):
    run = run_on(corpus, model=replace(run_on(corpus).model, tied=False))
    run = replace(run, optimizer=replace(run.optimizer, lr_peak=lr_peak))
    session = Session(tmp_path)
    result = train(run, placement(corpus), session)
    assert result.status == "diverged"
    assert result.loss is None
    too_high = r" is above 2 times (ln V = 5.545|its first record, [\d.]+)"
    assert re.match(rf"training loss .* at step \d+({too_high})?$", result.reason)
    assert session.steps[-1] < 10


def test_a_start_far_above_a_uniform_guess_has_not_diverged(corpus, tmp_path, monkeypatch):
    drawn = GPT.initialise

    def wide(self, generator):
        """Scale the head so that a token's own logit dominates, as in a wide tied model."""
        drawn(self, generator)
        with torch.no_grad():
            self.head.weight.mul_(10)

    monkeypatch.setattr(GPT, "initialise", wide)
    result = train(run_on(corpus), placement(corpus), Session(tmp_path))
    assert result.curve[0].train_loss > 2 * math.log(run_on(corpus).model.vocab_size)
    assert "training loss" not in (result.reason or "")


def test_the_bound_is_twice_the_larger_of_a_uniform_guess_and_the_first_record(corpus):
    def point(step, loss):
        return CurvePoint(step=step, n_tokens=step, flops=step, train_loss=loss, lr=1.0)

    run = run_on(corpus)
    low, high = point(1, 5.0), point(1, 40.0)
    assert _training_problem(point(2, 11.0), (low, point(2, 11.0)), run) is None
    assert _training_problem(point(2, 11.2), (low, point(2, 11.2)), run) == (
        "training loss 11.2 at step 2 is above 2 times ln V = 5.545"
    )
    assert _training_problem(point(2, 79.0), (high, point(2, 79.0)), run) is None
    assert _training_problem(point(2, 81.0), (high, point(2, 81.0)), run) == (
        "training loss 81 at step 2 is above 2 times its first record, 40"
    )


def test_nan_weights_diverge_and_every_record_is_json(corpus, tmp_path, monkeypatch):
    def poisoned(self, generator):
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(math.nan)

    monkeypatch.setattr(GPT, "initialise", poisoned)
    session = Session(tmp_path)
    result = train(run_on(corpus), placement(corpus), session)
    assert (result.status, result.curve) == ("diverged", ())
    assert result.reason == "training loss is nan at step 1"
    assert json.loads(json.dumps(session.records, allow_nan=False))[-1]["train_loss"] is None


def test_unprepared_data_is_a_data_error(corpus, tmp_path):
    with pytest.raises(DataError):
        train(run_on(corpus), placement(corpus, data_dir=tmp_path / "nothing"), Session(tmp_path))


@pytest.mark.parametrize("n_steps", [1, 2, 7, 100, 2400, 10**6])
def test_record_steps_are_log_spaced_without_large_gaps(n_steps):
    steps = record_steps(n_steps)
    assert steps[0] == 1
    assert steps[-1] == n_steps
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert all(gap >= 1 for gap in gaps)
    assert all(gap <= max(1, 1.5 * n_steps / 50) for gap in gaps)
    assert gaps == [] or gaps[-1] >= max(gaps) / 2
    assert len(steps) <= 50 + 4 * math.log2(n_steps + 1) + 8
