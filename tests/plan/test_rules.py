"""Hyperparameter rules against values computed from their sources."""

import math
from dataclasses import replace

import pytest

from sweep import flops
from sweep.config.compose import compose_experiment
from sweep.errors import InputError
from sweep.plan import rules
from sweep.plan.grid import make_plan
from tests.configs import TINY, composed
from tests.plan.test_grid import DATASET

T64 = replace(TINY, seq_len=64)


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
    assert rules.tiny_batch(TINY, 1e6) == 640
    assert rules.tiny_batch(TINY, 16e6) == pytest.approx(640 * 8)


def test_step_law_at_a_published_setting():
    """Li et al. 2025: at N = 1e9, D = 1e11 the law gives lr 1.6e-3 and a batch of 1.1M tokens."""
    lr = 1.79 * math.exp(-0.713 * math.log(1e9) + 0.307 * math.log(1e11))
    assert lr == pytest.approx(1.63e-3, rel=0.01)
    assert rules.step_law_batch(TINY, 1e11) == pytest.approx(1.11e6, rel=0.01)
    model = replace(TINY, d_model=2048, d_ff=8192, n_layers=20, n_heads=32, n_kv_heads=32)
    big = rules.Cell(budget=1e21, model=model, n_tokens=10**11, batch_tokens=2**20)
    n = 20 * 12 * 2048**2
    assert rules.step_law_lr(big) == pytest.approx(lr * (1e9 / n) ** 0.713, rel=1e-3)


def test_fixed_values_and_multipliers():
    optimizer = composed("experiment=smoke").optimizer
    fixed = replace(optimizer, lr=0.01, lr_multiplier=2.0, lr_max=0.001)
    assert rules.lr_peak(fixed, cell(32, 512)) == 0.02
    by_rule = replace(optimizer, lr="tiny", lr_multiplier=0.5)
    assert rules.lr_peak(by_rule, cell(32, 512)) == pytest.approx(0.008)
    assert rules.lr_peak(replace(by_rule, lr_max=0.01), cell(32, 512)) == pytest.approx(0.005)
    assert rules.batch_tokens(1000, 1.0, 1e6, T64) == 1024
    assert rules.batch_tokens("tiny", 2.0, 1e6, T64) == 1280
    assert rules.batch_tokens(1, 1.0, 1e6, T64) == 64


def test_warmup_in_fractions_or_tokens():
    schedule = composed("experiment=smoke").schedule
    assert rules.warmup_steps(schedule, cell(32, 500, n_tokens=500 * 101)) == 11
    in_tokens = replace(schedule, warmup_frac=None, warmup_tokens=1200.0)
    assert rules.warmup_steps(in_tokens, cell(32, 500)) == 3


def deepseek(d_model, n_layers, n_heads, n_kv_heads, d_ff):
    model = replace(TINY, activation="swiglu", seq_len=4096, vocab_size=102_400)
    return replace(
        model, d_model=d_model, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads, d_ff=d_ff
    )


@pytest.mark.parametrize(
    ("model", "lr", "batch_size"),
    [
        (deepseek(4096, 30, 32, 32, 11008), 4.2e-4, 2304),
        (deepseek(8192, 95, 64, 8, 22016), 3.2e-4, 4608),
    ],
    ids=["7B", "67B"],
)
def test_deepseek_at_their_own_models(model, lr, batch_size):
    """DeepSeek-AI 2024, table 2: what they trained on 2e12 tokens with, chosen by these laws."""
    big = rules.Cell(budget=1e24, model=model, n_tokens=2 * 10**12, batch_tokens=4096)
    assert rules.deepseek_lr(big) == pytest.approx(lr, rel=0.03)
    assert rules.deepseek_batch(model, 2e12) == pytest.approx(batch_size * 4096, rel=0.05)


def test_kaplans_rule_reaches_zero_where_they_say():
    """It breaks down at 1e10 parameters; at GPT-2's 1.5e9 it is 2.9e-4."""

    def at(n):
        width = 1024
        layers = round(n / (12 * width**2))
        model = replace(TINY, d_model=width, d_ff=4 * width, n_layers=layers)
        return rules.kaplan_lr(replace(cell(32, 512), model=model))

    assert at(1.5e9) == pytest.approx(2.9e-4, rel=0.02)
    assert at(0.95e10) < 4e-5
    assert at(1e12) == 1e-5


def test_porian_at_a_round_size():
    """3.7 N^-0.36 and 0.7576 N^0.703 at N = 1e8: 4.88e-3, and 156 sequences of 2,048 tokens."""
    model = replace(TINY, d_model=768, d_ff=3072, n_layers=12, vocab_size=19_634)
    n = flops.n_params(model).non_embedding + 19_634 * 768
    assert n == pytest.approx(1e8, rel=1e-3)
    assert rules.porian_lr(replace(cell(32, 512), model=model)) == pytest.approx(4.88e-3, rel=2e-3)
    assert rules.porian_batch(model, 1e9) == pytest.approx(2048 * 155.6, rel=2e-3)
    assert rules.n_params_warmup(replace(cell(32, 512), model=model)) == n


def test_power_lines_fixes_the_timescale():
    """tau = B/(lr·wd·D) is 0.224 at 20 tokens per parameter, whatever lr and batch."""
    n = flops.n_params(cell(64, 512).model).total

    def tau(batch, lr, ratio):
        one = cell(64, batch, n_tokens=round(ratio * n))
        return one.batch_tokens / (lr * rules.power_lines_weight_decay(one, lr) * one.n_tokens)

    assert tau(512, 0.01, 20) == pytest.approx(1.084 / 20**0.527, rel=1e-3)
    assert tau(512, 0.01, 20) == pytest.approx(0.2236, rel=1e-3)
    assert tau(4096, 0.003, 20) == pytest.approx(tau(512, 0.01, 20))
    assert tau(512, 0.01, 80) / tau(512, 0.01, 20) == pytest.approx(4**-0.527, rel=1e-3)


def test_half_life_is_the_same_number_of_tokens_at_every_batch():
    for batch in (2**9, 2**14, 2**19, 2**22):
        beta2 = rules.half_life_beta2(cell(32, batch, n_tokens=10**8))
        assert batch * math.log(0.5) / math.log(beta2) == pytest.approx(7.085e6, rel=1e-3)
    assert rules.half_life_beta2(cell(32, 2**19)) == 0.95


def test_a_batch_is_a_power_of_two_where_a_rule_allows_it():
    assert rules.batch_tokens("tiny", 1.0, 1e6, T64, power_of_two=True) == 8 * 64  # of 640
    assert rules.batch_tokens("tiny", 1.2, 1e6, T64, power_of_two=True) == 16 * 64  # nearest in ratio
    assert rules.batch_tokens("tiny", 1e-9, 1e6, T64, power_of_two=True) == 64
    assert rules.batch_tokens(1000, 1.0, 1e6, T64, power_of_two=True) == 1024  # 16 sequences as asked
    assert rules.batch_tokens(640, 1.0, 1e6, T64, power_of_two=True) == 640


def test_a_run_holds_numbers_and_one_value_for_what_is_not_used():
    by_rule = compose_experiment(
        ["experiment=smoke", "optimizer.weight_decay=power_lines", "optimizer.beta2=half_life"]
    ).optimizer
    here = cell(32, 512)
    run = rules.run_optimizer(by_rule, here, 1.0)
    assert run.weight_decay == rules.power_lines_weight_decay(here, run.lr_peak)
    assert run.beta2 == rules.half_life_beta2(here)
    sgd = composed("experiment=smoke", "optimizer=sgd", "optimizer.lr=0.3").optimizer
    other = replace(sgd, beta1=0.5, beta2=0.5, eps=1e-3, ns_steps=7)
    assert rules.run_optimizer(sgd, here, 1.0) == rules.run_optimizer(other, here, 1.0)


@pytest.mark.parametrize(
    ("registry", "key", "rule", "planned"),
    [
        ("LR_RULES", "optimizer.lr", lambda cell: 0.0123, lambda run: run.optimizer.lr_peak == 0.0123),
        ("BATCH_RULES", "batch_tokens", lambda model, n_tokens: 320, lambda run: run.batch_tokens == 320),
        ("BETA2_RULES", "optimizer.beta2", lambda cell: 0.99, lambda run: run.optimizer.beta2 == 0.99),
    ],
)
def test_a_rule_is_added_through_its_registry_alone(monkeypatch, registry, key, rule, planned):
    experiment = composed("experiment=smoke", f"{key}=toy")
    with pytest.raises(InputError, match=f"{key}=toy is not valid: give a number, or a rule"):
        make_plan(experiment, DATASET)
    monkeypatch.setitem(getattr(rules, registry), "toy", rule)
    runs = make_plan(experiment, DATASET).runs
    assert runs
    assert all(planned(run.config) for run in runs)


def test_a_power_law_is_a_rule_for_rate_and_batch():
    experiment = composed(
        "experiment=smoke",
        "optimizer.lr='3e-1 * N_non_embedding^-0.5*D^.1'",
        "batch_tokens='0.5 * N^0.1 * D^0.5'",
    )
    for run in make_plan(experiment, DATASET).runs:
        count = flops.n_params(run.config.model)
        wanted = 0.3 * count.non_embedding**-0.5 * run.config.n_tokens**0.1
        assert run.config.optimizer.lr_peak == pytest.approx(wanted, rel=1e-9)
        batch = (
            0.5
            * count.total**0.1
            * (run.config.flops_budget / flops.flops_per_token(run.config.model)) ** 0.5
        )
        seq_len = run.config.model.seq_len
        assert run.config.batch_tokens == max(1, round(batch / seq_len)) * seq_len


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr='-1 * N^-0.5'", "is not valid: give a number, or a rule .*, or a power law"),
        ("optimizer.beta2='0.9 * N^-0.5'", r"is not valid: give a number, or a rule \(half_life\)"),
    ],
)
def test_a_power_law_elsewhere_or_below_zero_is_refused(override, message):
    with pytest.raises(InputError, match=message):
        make_plan(composed("experiment=smoke", override), DATASET)
