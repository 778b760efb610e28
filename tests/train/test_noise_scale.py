"""Noise scale: planted covariances, and a run that measuring leaves unchanged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sweep.config.compose import compose_experiment
from sweep.errors import InputError
from sweep.train.loop import train
from sweep.train.models.gpt import GPT
from sweep.train.noise_scale import NoiseScale, moments, noise_steps
from tests.configs import tiny_run
from tests.train.sessions import Session, placement, run_on
from tests.train.test_loop import science


def test_planted_covariance_is_recovered():
    """Gradients with known mean and covariance, averaged over steps as in a run."""
    generator = np.random.default_rng(0)
    mean, spread = generator.normal(size=50) * 0.1, generator.uniform(0.5, 2.0, size=50)
    sums = np.zeros(2)
    for _ in range(400):
        parts = mean + spread * generator.normal(size=(8, 16, 50))  # 8 small batches of 16
        small = np.square(parts.mean(1)).sum(-1).mean()
        large = np.square(parts.mean((0, 1))).sum()
        sums += moments(small, large, 16, 128)
    squared_gradient, trace = sums / 400
    assert squared_gradient == pytest.approx(np.square(mean).sum(), rel=0.05)
    assert trace == pytest.approx(np.square(spread).sum(), rel=0.02)
    assert trace / squared_gradient == pytest.approx(
        np.square(spread).sum() / np.square(mean).sum(), rel=0.05
    )


class Linear(torch.nn.Module):
    """Model with loss x·w per position: the gradient of a token is the token's vector."""

    def __init__(self, table):
        super().__init__()
        self.table = table
        self.weight = torch.nn.Parameter(torch.zeros(table.size(1)))

    def total_loss(self, tokens, targets):
        return (self.table[tokens] @ self.weight).sum()


@pytest.mark.parametrize(("micro", "part_size"), [(None, 8), (2, 2)])
def test_a_model_with_known_token_gradients(micro, part_size):
    """With independent tokens from a table of vectors, G and Σ are its mean and covariance."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(97, 5, generator=generator) + 0.3
    tokens = np.random.default_rng(1).integers(0, 97, size=(320, 64, 17))
    run = tiny_run(batch_tokens=64 * 16, n_tokens=64 * 16 * 320)
    noise = NoiseScale(Linear(table), run, lambda step, start, stop: tokens[step, start:stop], micro)
    assert noise.part_size == part_size
    for step in range(run.n_steps):
        noise.measure(step)
    trace = float(table.var(0, correction=0).sum())
    expected = trace / float(table.mean(0).square().sum())
    assert noise.b_simple_tokens() == pytest.approx(expected, rel=0.1)


def test_measuring_changes_nothing_and_survives_an_interruption(corpus, tmp_path):
    run = run_on(corpus)
    plain = train(run, placement(corpus), Session(tmp_path / "plain"))
    measuring = placement(corpus, measure_noise_scale=True)
    measured = train(run, measuring, Session(tmp_path / "measured"))
    assert plain.b_simple_tokens is None
    assert measured.b_simple_tokens > 0
    ours, others = science(measured), science(plain)
    assert ours.pop("b_simple_tokens") != others.pop("b_simple_tokens")
    assert ours == others  # to the bit
    (tmp_path / "cut").mkdir()
    with pytest.raises(Exception, match="stopped at step 53"):
        train(run, measuring, Session(tmp_path / "cut", stop_after=53))
    assert train(run, measuring, Session(tmp_path / "cut")).b_simple_tokens == measured.b_simple_tokens


def test_a_batch_of_one_sequence_has_no_second_size(corpus):
    run = replace(run_on(corpus), batch_tokens=32)
    noise = NoiseScale(GPT(run.model), run, lambda *_: None, None)
    noise.measure(run.n_steps - 1)
    assert noise.b_simple_tokens() is None


@pytest.mark.parametrize("n_steps", [1, 7, 40, 400, 3200, 10**6])
def test_few_late_steps_are_measured(n_steps):
    steps = noise_steps(n_steps)
    assert len(set(steps)) == len(steps) <= 64
    assert int(0.8 * n_steps) <= steps[0] <= steps[-1] < n_steps
    assert len(steps) <= max(8, n_steps / 50)


@pytest.mark.ci
def test_of_several_ranks_the_first_measures_what_one_would(corpus, tmp_path):
    run = run_on(corpus, n_tokens=256 * 12)
    one = train(run, placement(corpus, measure_noise_scale=True), Session(tmp_path / "one"))
    spread = placement(corpus, measure_noise_scale=True, n_devices=2, parallel="ddp")
    two = train(run, spread, Session(tmp_path / "two"))
    assert two.b_simple_tokens == pytest.approx(one.b_simple_tokens, rel=1e-3)
    sharded = placement(corpus, measure_noise_scale=True, n_devices=2, parallel="fsdp")
    assert train(run, sharded, Session(tmp_path / "sharded")).b_simple_tokens is None


def test_sharded_weights_are_refused_in_one_sentence():
    asked = ["experiment=smoke", "trainer.measure_noise_scale=true", "trainer.n_devices=2"]
    compose_experiment([*asked, "trainer.parallel=ddp"])
    with pytest.raises(InputError, match=r"trainer\.measure_noise_scale=true needs whole weights"):
        compose_experiment([*asked, "trainer.parallel=fsdp"])
