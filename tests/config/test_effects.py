"""A key without effect is refused on the command line, and reported where an experiment's file sets it."""

import logging

import pytest

from sweep.config import known_keys
from sweep.config.compose import compose_experiment, compose_experiments, override_experiment
from sweep.config.effects import CONDITIONS
from sweep.errors import InputError

REFUSED = [
    (["grid.n_sizes=3"], "grid.n_sizes=3 has no effect: it needs grid.d_model=null and grid.n_params=null"),
    (["grid={span:3}"], "grid.span=3.0 has no effect"),
    (["grid.d_model=null", "grid.n_params=[1e4]", "grid.n_sizes=3"], "grid.n_sizes=3 has no effect"),
    (["model.width_multiple=8"], "model.width_multiple=8 has no effect: it needs grid.d_model=null"),
    (["model.positions=learned", "model.rope_base=1e4"], "model.rope_base=10000.0 has no effect"),
    (["model.qk_norm=false", "model.qk_gain=1.2"], "model.qk_gain=1.2 has no effect"),
    (["model.init_std=0.02", "model.embedding_scale=1"], "model.embedding_scale=1.0 has no effect"),
    (["optimizer.lr=0.1", "optimizer.lr_max=1"], "optimizer.lr_max=1.0 has no effect"),
    (["optimizer=sgd", "optimizer.lr=0.1", "optimizer.beta2=0.9"], "optimizer.beta2=0.9 has no effect"),
    (["optimizer.ns_steps=3"], "optimizer.ns_steps=3 has no effect: it needs optimizer=muon"),
    (["optimizer.muon_scaling=original"], "optimizer.muon_scaling=original has no effect"),
    (["batch_tokens=640", "batch_power_of_two=true"], "batch_power_of_two=true has no effect"),
    (["schedule=constant", "schedule.final_lr_frac=0.1"], "schedule.final_lr_frac=0.1 has no effect"),
    (["trainer.parallel=ddp"], "trainer.parallel=ddp has no effect: it needs trainer.n_devices above 1"),
    (["trainer.device=cpu", "trainer.deterministic=true"], "trainer.deterministic=true has no effect"),
    (["launch=ray", "launch.allow_insecure=true"], "launch.allow_insecure=true has no effect"),
    (["tracking.mode=offline"], "tracking.mode=offline has no effect: it needs tracking=wandb"),
    (["arms={tracking.mode:[online,offline]}"], "tracking.mode=online has no effect"),
    (["data.roots=[x]"], "data.roots has no effect with data=stdlib: it needs data=python"),
    (["launch.time='1:00:00'"], "launch.time has no effect with launch=local: it needs launch=slurm"),
    (["tokenizer.path=x"], "tokenizer.path has no effect with tokenizer=byte or bpe: it needs"),
]


@pytest.mark.parametrize(("overrides", "sentence"), REFUSED)
def test_an_override_without_effect_is_refused(overrides, sentence):
    with pytest.raises(InputError) as refused:
        compose_experiments(["experiment=smoke", *overrides])
    assert str(refused.value).startswith(sentence)


def test_an_override_on_a_stored_experiment_is_held_to_the_same():
    base = compose_experiment(["experiment=smoke"])
    with pytest.raises(InputError, match=r"grid\.span=2\.0 has no effect"):
        override_experiment(base, ["grid.span=2"])
    assert override_experiment(base, ["fit.n_bootstrap=9"]).fit.n_bootstrap == 9


ACCEPTED = [
    ["grid.d_model=null", "grid.n_sizes=3"],
    ["tracking=wandb", "tracking.mode=offline"],
    ["optimizer=muon", "optimizer.ns_steps=3"],
    ["batch_tokens=640", "batch_power_of_two=false"],  # switches off what is off
    ["optimizer.lr=0.1", "optimizer.lr_max=null"],
    ["arms={optimizer:[adamw,sgd]}", "optimizer.lr=0.1", "optimizer.beta2=0.9"],  # an effect in one arm
]


@pytest.mark.parametrize("overrides", ACCEPTED)
def test_an_override_with_an_effect_is_accepted(overrides):
    assert compose_experiments(["experiment=smoke", *overrides])


def test_a_key_of_the_experiments_file_is_reported(caplog, tmp_path):
    """Also a key that it inherits; what only a group's file says is no setting of the user's."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - smoke\nname: mine\ntracking:\n  project: p\n"
    )
    with caplog.at_level(logging.WARNING):
        compose_experiment(["experiment=mine", "optimizer=sgd", "optimizer.lr=1"], tmp_path)
    assert caplog.messages == [
        "experiment=mine: tracking.project=p has no effect: it needs tracking=wandb",
        "experiment=mine: optimizer.beta1=0.85 has no effect: it needs optimizer=adamw or optimizer=muon",
    ]


@pytest.mark.parametrize("name", ["demo", "demo_bytes", "isoflop_1gpu", "isoflop_30min", "smoke"])
def test_packaged_experiments_set_nothing_without_effect(name, caplog):
    compose_experiment([f"experiment={name}"])
    assert caplog.messages == []


def test_conditions_are_of_known_keys():
    assert {key for condition in CONDITIONS for key in condition.keys} <= set(known_keys())
