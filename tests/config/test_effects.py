"""A key without effect is refused on the command line, and reported where an experiment's file sets it."""

import logging
from dataclasses import replace

import pytest

from sweep.config import known_keys
from sweep.config.compose import compose_experiment, compose_experiments, override_experiment
from sweep.config.effects import CONDITIONS, without_effect
from sweep.errors import InputError
from tests.configs import composed

REFUSED = [
    (["grid.n_sizes=3"], "grid.n_sizes=3 has no effect: it needs grid.d_model=null and grid.n_params=null"),
    (["grid={span:3}"], "grid.span=3.0 has no effect"),
    (
        ["arms={tracking.mode:[online,offline]}"],
        "tracking.mode=online has no effect: it needs tracking=wandb",
    ),
    (["data.roots=[x]"], "data.roots has no effect with data=stdlib: it needs data=python"),
    (["launch.time='1:00:00'"], "launch.time has no effect with launch=local: it needs launch=slurm"),
    (["tokenizer.path=x"], "tokenizer.path has no effect with tokenizer=byte or bpe: it needs"),
]


@pytest.mark.parametrize(("overrides", "sentence"), REFUSED)
def test_an_override_without_effect_is_refused(overrides, sentence):
    with pytest.raises(InputError) as refused:
        compose_experiments(["experiment=smoke", *overrides])
    assert str(refused.value).startswith(sentence)


SGD = ("optimizer=sgd", "optimizer.lr=0.1", "optimizer.weight_decay=0")
WITHOUT = [  # groups, values by section, the key without effect
    ((), {"grid": {"d_model": None, "n_params": (1e4,), "n_sizes": 3}}, "grid.n_sizes"),
    ((), {"model": {"width_multiple": 8}}, "model.width_multiple"),
    ((), {"model": {"positions": "learned", "rope_base": 1e3}}, "model.rope_base"),
    ((), {"model": {"qk_norm": False, "qk_gain": 1.2}}, "model.qk_gain"),
    ((), {"model": {"init_std": 0.02, "embedding_scale": 1.0}}, "model.embedding_scale"),
    ((), {"optimizer": {"lr": 0.1, "lr_max": 1.0}}, "optimizer.lr_max"),
    ((), {"optimizer": {"ns_steps": 3}}, "optimizer.ns_steps"),
    ((), {"optimizer": {"muon_scaling": "original"}}, "optimizer.muon_scaling"),
    (SGD, {"optimizer": {"beta1": 0.9}}, "optimizer.beta1"),
    (SGD, {"optimizer": {"beta2": 0.9}}, "optimizer.beta2"),
    (SGD, {"optimizer": {"eps": 1e-6}}, "optimizer.eps"),
    ((), {"batch_tokens": 640, "batch_power_of_two": True}, "batch_power_of_two"),
    (("schedule=constant",), {"schedule": {"final_lr_frac": 0.1}}, "schedule.final_lr_frac"),
    ((), {"trainer": {"parallel": "ddp"}}, "trainer.parallel"),
    ((), {"trainer": {"device": "cpu", "deterministic": True}}, "trainer.deterministic"),
    (("launch=ray",), {"launch": {"allow_insecure": True}}, "launch.allow_insecure"),
    ((), {"tracking": {"mode": "offline"}}, "tracking.mode"),
    ((), {"tracking": {"entity": "team"}}, "tracking.entity"),
]


@pytest.mark.parametrize(("groups", "values", "key"), WITHOUT)
def test_a_key_without_effect_is_named_with_what_it_needs(groups, values, key):
    experiment = composed("experiment=smoke", *groups)
    for section, value in values.items():
        new = replace(getattr(experiment, section), **value) if isinstance(value, dict) else value
        experiment = replace(experiment, **{section: new})
    found = without_effect(experiment, known_keys())
    assert found[key].startswith(f"{key}=")
    assert " has no effect: it needs " in found[key]


def test_an_override_on_a_stored_experiment_is_held_to_the_same():
    base = compose_experiment(["experiment=smoke"])
    with pytest.raises(InputError, match=r"grid\.span=2\.0 has no effect"):
        override_experiment(base, ["grid.span=2"])
    assert override_experiment(base, ["fit.n_bootstrap=9"]).fit.n_bootstrap == 9


ACCEPTED = [
    ["grid.d_model=null", "grid.n_sizes=3"],
    ["batch_tokens=640", "batch_power_of_two=false", "optimizer.lr=0.1", "optimizer.lr_max=null"],
    ["arms={optimizer:[adamw,sgd]}", "optimizer.lr=0.1", "optimizer.beta2=0.9"],  # an effect in one arm
]


@pytest.mark.parametrize("overrides", ACCEPTED)
def test_an_override_with_an_effect_or_that_switches_off_is_accepted(overrides):
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


def test_conditions_are_of_known_keys():
    assert {key for condition in CONDITIONS for key in condition.keys} <= set(known_keys())
