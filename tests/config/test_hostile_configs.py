"""Malicious configs: each is refused in one sentence and in less than a second of computation."""

import time
from pathlib import Path

import pytest

from sweep.config import read_experiment, to_dict
from sweep.config.compose import compose_experiments
from sweep.errors import InputError, SweepError
from sweep.plan.grid import make_plan
from sweep.records import Dataset
from tests.toy_trainer import toy_experiment

DATASET = Dataset(
    corpus="c",
    corpus_sha256="0" * 64,
    tokenizer="bpe",
    tokenizer_sha256="1" * 64,
    vocab_size=512,
    n_train_tokens=None,
)

OVERRIDES = {
    "a resolver of the environment": ["name=${oc.env:HOME}"],
    "a resolver in a path": ["results_dir=${oc.env:AWS_SECRET_ACCESS_KEY}"],
    "a resolver that decodes": ["budgets=${oc.decode:'[1e9]'}"],
    "a resolver that makes sections": ["grid=${oc.create:{a:1}}"],
    "a resolver within a reference": ["name=${${oc.env:X}}"],
    "a reference to a section": ["name=${grid}"],
    "a python object": ["+_target_=os.system"],
    "a python object in a section": ["model._target_=subprocess.Popen"],
    "an appended python object": ["++optimizer._target_=builtins.exec"],
    "hydra's own directory": ["hydra.run.dir=/etc"],
    "hydra's launcher": ["hydra/launcher=basic"],
    "hydra's search path": ["+hydra.searchpath=[file:///etc]"],
    "a config outside": ["experiment=../../../../etc/passwd"],
    "a group outside": ["model=../experiment/smoke"],
    "a huge list": [f"seeds=[{','.join(map(str, range(100_000)))}]"],
    "a deep list": ["budgets=" + "[" * 5000 + "1" + "]" * 5000],
    "a deep section": ["grid=" + "{a:" * 500 + "1" + "}" * 500],
    "a range": ["seeds=range(1000000000)"],
    "a product": [f"arms={{seeds:{list(range(40))},batch_tokens:{list(range(40))}}}"],
    "1e9 cells": ["grid.d_model=null", "grid.n_sizes=1000000000"],
    "1e300 sizes": ["grid.d_model=null", "grid.n_sizes=1" + "0" * 300],
    "an int of 5000 digits": ["batch_tokens=" + "9" * 5000],
    "an int of 400 digits": ["batch_tokens=" + "9" * 400],
    "a giant model": ["model.n_layers=1" + "0" * 40],
    "not a number": ["budgets=[nan]"],
    "infinity": ["optimizer.lr=inf"],
    "a NUL": ["results_dir=a\0b"],
    "a line end": ["results_dir=a\nb"],
    "a terminal escape": ["data_dir='\x1b[2J'"],
    "half a character": ["results_dir=\udcff"],
    "a password in a URL": ["results_dir=s3://me:hunter2hunter2@bucket/x"],
    "only blanks": ["name='   '"],
    "a removed section": ["~trainer"],
    "a renamed section": ["model@data=gpt"],
}  # fmt: skip


def _plans(overrides, config_dir):
    return [make_plan(experiment, DATASET) for experiment in compose_experiments(overrides, config_dir)]


def refusal(overrides, config_dir=None):
    """Return the sentence and the CPU time of this process until it was raised."""
    began = time.process_time()
    with pytest.raises(SweepError) as refused:
        _plans(["experiment=smoke", *overrides], config_dir)
    took_s = time.process_time() - began
    assert isinstance(refused.value, InputError)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert len(sentence) < 1500
    return sentence, took_s


def test_the_experiment_itself_is_fine():
    [experiment] = compose_experiments(["experiment=smoke"])
    assert make_plan(experiment, DATASET).runs


@pytest.mark.parametrize("overrides", OVERRIDES.values(), ids=OVERRIDES)
def test_a_hostile_override_is_refused_in_a_sentence_and_a_second(overrides):
    _, took_s = refusal(overrides)
    assert took_s < 1


LAUGHS = "\n".join(
    ["# @package _global_", "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)
REFERENCES = "\n".join(
    ["# @package _global_", "name: lol"]
    + [f"x{i}: ${{{f'x{i - 1}' if i else 'name'}}}${{{f'x{i - 1}' if i else 'name'}}}" for i in range(40)]
)
FILES = {
    "a billion laughs": LAUGHS,
    "an alias to itself": "# @package _global_\na: &a [*a]\n",
    "a merged alias": "# @package _global_\nbase: &b {name: x}\ngrid:\n  <<: *b\n",
    "references that double forty times": REFERENCES,
    "a reference to itself": "# @package _global_\nname: ${name}\n",
    "a python tag": "# @package _global_\nname: !!python/object/apply:os.system ['true']\n",
    "a python name": "# @package _global_\nname: !!python/name:os.system\n",
    "a tag of one's own": "# @package _global_\nname: !exec true\n",
    "a resolver": "# @package _global_\nname: ${oc.env:PATH}\n",
    "a python object": "# @package _global_\n_target_: os.system\n",
    "deep nesting": "# @package _global_\nname: " + "[" * 3000 + "]" * 3000 + "\n",
    "deep sections": "# @package _global_\n" + "".join(" " * i + f"k{i}:\n" for i in range(400)),
    "a megabyte": "# @package _global_\nseeds: [" + "1, " * 400_000 + "1]\n",
    "two documents": "# @package _global_\nname: a\n---\nname: b\n",
    "binary": "# @package _global_\nname: \x00\x01\n",
    "a list": "- 1\n- 2\n",
    "defaults of itself": "# @package _global_\ndefaults:\n  - /experiment/evil\n",
    "hydra's settings": "# @package _global_\nhydra:\n  run:\n    dir: /etc\n",
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_hostile_file_is_refused_in_a_sentence_and_a_second(tmp_path, content):
    path = tmp_path / "configs" / "experiment" / "evil.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    _, took_s = refusal(["experiment=evil"], path.parents[1])
    assert took_s < 1


def test_a_bomb_that_is_only_included_is_refused_too(tmp_path):
    directory = tmp_path / "configs" / "experiment"
    (directory / "deeper").mkdir(parents=True)
    (directory / "deeper" / "bomb.yaml").write_text(LAUGHS)
    (directory / "outer.yaml").write_text("# @package _global_\ndefaults:\n  - deeper/bomb\n")
    sentence, took_s = refusal(["experiment=outer"], tmp_path / "configs")
    assert "bomb.yaml, line 3 holds an alias" in sentence
    assert took_s < 1


def test_a_reference_to_a_plain_value_still_works():
    [experiment] = compose_experiments(
        ["experiment=smoke", "evaluation.n_tokens=${batch_tokens}", "batch_tokens=640"]
    )
    assert experiment.evaluation.n_tokens == 640


@pytest.mark.parametrize("field", ["name", "results_dir"])
def test_a_stored_experiment_is_held_to_the_same_values(field):
    values = to_dict(toy_experiment())
    for hostile in ("", 7, None, ["x"], {"_target_": "os.system"}):
        with pytest.raises(InputError):
            read_experiment({**values, field: hostile})


def test_configs_of_another_program_are_left_alone(tmp_path, monkeypatch):
    """A file of ./configs that cannot be read is no error unless it is composed."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "theirs.yaml").write_text("{{ not yaml }}: [")
    Path(tmp_path / "configs" / "folder.yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    assert compose_experiments(["experiment=smoke"])
