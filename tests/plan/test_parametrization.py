"""mup in a plan: its numbers, unchanged run keys, and combinations that are refused."""

from dataclasses import replace

import pytest

from sweep.config import read_run, to_dict
from sweep.errors import InputError
from sweep.identity import run_key
from sweep.plan.grid import make_plan
from sweep.records import Dataset
from tests.configs import TINY, composed, tiny_run

DATASET = Dataset(
    corpus="test",
    corpus_sha256="0" * 64,
    tokenizer="byte",
    tokenizer_sha256="1" * 64,
    vocab_size=256,
    n_train_tokens=10_000_000,
)
MUP = ("mup_base_width=16", "optimizer.lr=0.02")


def plan(*overrides):
    return make_plan(composed("experiment=demo_bytes", *overrides), DATASET)


def test_multipliers_by_the_table():
    """m = d/16: logits by m^-1/2, scores by (head size over the base's)^-1/2, two heads at every width."""
    for run in plan(*MUP).runs:
        config, ratio = run.config, run.config.model.d_model / 16
        assert config.parametrization == "mup"
        assert config.optimizer.width_ratio == ratio
        assert config.optimizer.lr_peak == 0.02
        assert config.model.output_scale == pytest.approx(ratio**-0.5)
        assert config.model.attention_scale == pytest.approx((config.model.head_dim / 8) ** -0.5)


def test_heads_of_a_fixed_size_keep_their_scores():
    wide = plan(*MUP, "model.n_heads=null", "model.head_dim=4")
    assert {run.config.model.attention_scale for run in wide.runs} == {1.0}


def test_at_the_base_width_mup_is_standard_under_another_key():
    standard, mup = (
        {run.config.model.d_model: run for run in plan(*overrides, "budgets=[1e11]", sizes).runs}
        for sizes in ["grid.d_model=[12,16,24,32]"]
        for overrides in (["optimizer.lr=0.02"], MUP)
    )
    assert replace(mup[16].config, parametrization="standard") == standard[16].config
    assert {run.run_key for run in standard.values()}.isdisjoint(run.run_key for run in mup.values())
    assert mup[32].flops == standard[32].flops


def test_new_fields_at_their_defaults_leave_the_key_as_it_was():
    """Also if the config was stored by a version without them."""
    stored = to_dict(tiny_run())
    for section, keys in {
        "model": ("output_scale", "attention_scale", "init_std"),
        "optimizer": ("momentum", "nesterov", "ns_steps", "muon_scaling", "width_ratio"),
    }.items():
        for key in keys:
            del stored[section][key]
    del stored["parametrization"]
    assert read_run(stored) == tiny_run()
    assert run_key(read_run(stored)) == "20484c1f31792388"


REFUSED = [
    (["mup_base_width=64"], "optimizer.lr=tiny with mup_base_width=64 scales with the size twice"),
    (["mup_base_width=17", MUP[1]], "mup_base_width=17 is not a width of this family: d_model=17"),
    ([*MUP, "model.init_std=0.02"], "model.init_std=0.02 is not valid with mup, which starts matrices at"),
    (["optimizer=sgd"], "optimizer.lr=tiny was measured with adamw, and its updates do not shrink"),
    (["optimizer=muon", "optimizer.muon_scaling=original"], "optimizer.lr=tiny was measured with adamw, and"),
    (["optimizer.momentum=0.9"], "optimizer.momentum=0.9 and optimizer.nesterov=false have no effect on"),
    (
        ["optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.nesterov=true"],
        "optimizer.nesterov=true needs optimizer.momentum above 0",
    ),
    (
        ["optimizer=sgd", "optimizer.lr=1", "optimizer.weight_decay=power_lines"],
        "optimizer.weight_decay=power_lines was measured with adamw",
    ),
    (
        ["optimizer.beta2=halflife"],
        "optimizer.beta2=halflife is not valid: give a number, or a rule",
    ),
]


@pytest.mark.parametrize(("overrides", "sentence"), REFUSED)
def test_invalid_combinations_are_refused(overrides, sentence):
    with pytest.raises(InputError) as refusal:
        plan(*overrides)
    assert str(refusal.value).startswith(sentence), refusal.value
    assert "\n" not in str(refusal.value)


def test_multipliers_without_mup_are_refused():
    with pytest.raises(InputError, match=r"parametrization=standard with model\.output_scale=0\.5"):
        tiny_run(model=replace(TINY, output_scale=0.5))


def test_a_warmup_rule_drops_the_cells_it_does_not_fit():
    short = plan("schedule.warmup_frac=null", "schedule.warmup_tokens=n_params", "grid.tokens_per_param=14")
    assert short.runs
    for run in short.runs:
        steps = run.config.schedule.warmup_steps
        assert 0 <= steps * run.config.batch_tokens - run.n_params < run.config.batch_tokens + 256
    wide = plan(
        "schedule.warmup_frac=null",
        "schedule.warmup_tokens=n_params",
        "budgets=[4e10]",
        "grid.d_model=[8,12,16,128]",
        "grid.min_steps=1",
    )
    (cell,) = wide.dropped
    assert cell.reason.startswith("schedule.warmup_tokens=n_params is a warmup of")
