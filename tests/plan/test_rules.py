"""Hyperparameter rules against values worked out from their sources."""

import math
from dataclasses import replace

import pytest

from sweep.compose import compose_experiment
from sweep.plan import rules
from tests.configs import TINY


def cell(d_model, batch, n_tokens=10**6):
    return rules.Cell(
        budget=1e11,
        model=replace(TINY, d_model=d_model, n_heads=1, n_kv_heads=1),
        n_tokens=n_tokens,
        batch_tokens=batch,
    )


def test_tiny_rules_at_their_anchors():
    assert rules.tiny_lr(cell(32, 512)) == pytest.approx(0.016)
    assert rules.tiny_lr(cell(64, 512)) == pytest.approx(0.008)
    assert rules.tiny_lr(cell(32, 128)) == pytest.approx(0.008)
    assert rules.tiny_lr(cell(8, 2048)) == 0.026
    assert rules.tiny_bpe_lr(cell(32, 320)) == pytest.approx(0.0245)
    assert rules.tiny_bpe_lr(cell(8, 2048)) == 0.055
    assert rules.tiny_batch(1e6) == 640
    assert rules.tiny_batch(16e6) == pytest.approx(640 * 8)


def test_step_law_at_a_published_setting():
    """Li et al. 2025: at N = 1e9, D = 1e11 the law gives lr 1.6e-3 and a batch of 1.1M tokens."""
    lr = 1.79 * math.exp(-0.713 * math.log(1e9) + 0.307 * math.log(1e11))
    assert lr == pytest.approx(1.63e-3, rel=0.01)
    assert rules.step_law_batch(1e11) == pytest.approx(1.11e6, rel=0.01)
    model = replace(TINY, d_model=2048, d_ff=8192, n_layers=20, n_heads=32, n_kv_heads=32)
    big = rules.Cell(budget=1e21, model=model, n_tokens=10**11, batch_tokens=2**20)
    n = 20 * 12 * 2048**2
    assert rules.step_law_lr(big) == pytest.approx(lr * (1e9 / n) ** 0.713, rel=1e-3)


def test_fixed_values_and_multipliers():
    optimizer = compose_experiment(["experiment=smoke"]).optimizer
    fixed = replace(optimizer, lr=0.01, lr_multiplier=2.0, lr_max=0.001)
    assert rules.lr_peak(fixed, cell(32, 512)) == 0.02
    by_rule = replace(optimizer, lr="tiny", lr_multiplier=0.5)
    assert rules.lr_peak(by_rule, cell(32, 512)) == pytest.approx(0.008)
    assert rules.lr_peak(replace(by_rule, lr_max=0.01), cell(32, 512)) == pytest.approx(0.005)
    assert rules.batch_tokens(1000, 1.0, 1e6, 64) == 1024
    assert rules.batch_tokens("tiny", 2.0, 1e6, 64) == 1280
    assert rules.batch_tokens(1, 1.0, 1e6, 64) == 64


def test_warmup_in_fractions_or_tokens():
    schedule = compose_experiment(["experiment=smoke"]).schedule
    assert rules.warmup_steps(schedule, cell(32, 500, n_tokens=500 * 101)) == 11
    in_tokens = replace(schedule, warmup_frac=None, warmup_tokens=1200.0)
    assert rules.warmup_steps(in_tokens, cell(32, 500)) == 3
