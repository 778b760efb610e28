"""Validation of plain dicts, with every refusal in one sentence."""

import copy

import pytest

from sweep.config import read_experiment, read_run, to_dict
from sweep.config.compose import compose_experiment
from sweep.errors import InputError
from sweep.identity import run_key
from tests.configs import tiny_run


@pytest.fixture(scope="module")
def demo():
    return to_dict(compose_experiment(["experiment=demo"]))


def changed(values, path, value):
    values = copy.deepcopy(values)
    section = values
    *parents, last = path.split(".")
    for key in parents:
        section = section[key]
    section[last] = value
    return values


def test_round_trip(demo):
    experiment = read_experiment(demo)
    assert read_experiment(to_dict(experiment)) == experiment
    run = tiny_run()
    assert read_run(to_dict(run)) == run
    assert run_key(read_run(to_dict(run))) == run_key(run)


def test_whole_floats_are_counts_and_fractions_are_not(demo):
    assert read_experiment(changed(demo, "evaluation.n_tokens", 1e5)).evaluation.n_tokens == 100_000
    with pytest.raises(InputError, match=r"^evaluation.n_tokens=1.5 is not valid: .*fractional part$"):
        read_experiment(changed(demo, "evaluation.n_tokens", 1.5))


REFUSED = [
    ("budgets", [-1e9], "budgets=-1000000000.0 is not valid: it should be greater than 0"),
    ("budgets", [1e10, 1e40], "budgets=1e+40 is not valid: it should be less than or equal to 1e+30"),
    ("budgets", [1e10, "much"], "budgets='much' is not valid: it should be a number, without quotes"),
    ("budgets", [], "budgets=[] is not valid: list should have at least 1 item, not 0"),
    (
        "budgets",
        [float("nan")],
        "budgets=nan is not valid: it should be a finite number",
    ),
    ("budgets", [1e9, 1e9], "budgets=[1000000000.0, 1000000000.0] holds a value twice: give each once"),
    ("fit.methods", [], "fit.methods=[] is not valid: list should have at least 1 item, not 0"),
    ("seeds", [2**64], "seeds=18446744073709551616 is not valid"),
    ("seeds", [0, 0], "seeds=[0, 0] holds a value twice: give each once"),
    (
        "optimizer.lr",
        -1.0,
        "optimizer.lr=-1.0 is not valid: it should be greater than 0 or it should be the name of a rule",
    ),
    ("optimizer.beta2", 1.0, "optimizer.beta2=1.0 is not valid: it should be less than 1"),
    ("model.n_layer", 3, "model.n_layer is not a known key: did you mean model.n_layers"),
    ("model.head_dim", 8, "model.n_heads=2 and model.head_dim=8: set exactly one of the two"),
    (
        "schedule.warmup_tokens",
        100,
        "schedule.warmup_frac=0.1 and schedule.warmup_tokens=100.0: set exactly one",
    ),
    ("grid.d_model", [], "grid.d_model=[] holds an empty list of sizes: give at least one size"),
    ("grid.d_model", [[8], [], [8], [8]], "grid.d_model=[(8,), (), (8,), (8,)] holds an empty list of sizes"),
    ("grid.d_model", [[8], [8]], "grid.d_model holds 2 lists for 5 budgets: give one list for all"),
    ("grid.n_params", [1e6], "grid.d_model and grid.n_params are both given: set one of them to null"),
    (
        "tokenizer",
        {"name": "byte", "vocab_size": 300},
        "tokenizer.vocab_size=300: the byte tokenizer has at most",
    ),
    ("name", "../up", "name='../up' is not valid: use letters, digits"),
    ("precision", "fp8", "precision='fp8' is not valid: it should be 'fp32' or 'bf16'"),
    ("launch", 3, "launch=3 is not valid: it should be a section of keys"),
    ("model", None, "model=null is not valid: it should be a section of keys"),
    ("seeds", 3, "seeds=3 is not valid: it should be a list in brackets, such as [1,2]"),
    ("budgets", 3, "budgets=3 is not valid: it should be a list in brackets, such as [1e10,2e10]"),
    (
        "fit.methods",
        "isoflop",
        "fit.methods='isoflop' is not valid: it should be a list in brackets, such as",
    ),
    ("data", {"source": "python", "roots": None}, "data.roots=null is not valid: it should be a list in bra"),
    ("name", 123, "name=123 is not valid: it should be a text, in quotes"),
    (
        "launch",
        {"name": "slurm", "options": {"qos": "a", "nice": 0.5}},
        "launch.options.nice=0.5 is not valid: it should be true or false",
    ),
    ("launch", {"name": "ray", "resources": {"a": "b"}}, "launch.resources.a='b' is not valid: it should be"),
    ("launch", {"name": "slurm", "export": ["A=b"]}, "launch.export='A=b' is not valid: give the name of an"),
    ("evaluation.sets", {1: {"source": "stdlib"}}, "evaluation.sets has the key 1, which is not valid: it"),
    ("evaluation.sets", {"a b": {"source": "stdlib"}}, "evaluation.sets has the key 'a b', which is not"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), REFUSED)
def test_refused_in_one_sentence(demo, path, value, sentence):
    with pytest.raises(InputError) as refusal:
        read_experiment(changed(demo, path, value))
    assert str(refusal.value).startswith(sentence)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2


def test_a_missing_key_is_named(demo):
    values = {key: value for key, value in demo.items() if key != "budgets"}
    with pytest.raises(InputError, match=r"^budgets is missing: give it a value$"):
        read_experiment(values)


RUN_REFUSED = [
    ({"batch_tokens": 65}, "batch_tokens=65 is not a multiple of seq_len=16"),
    ({"n_tokens": 100}, "n_tokens=100 is not a multiple of batch_tokens=64"),
    ({"n_tokens": 64 * 4}, "schedule.warmup_steps=4 is too long for a run of 4 steps: choose at most 3"),
]


@pytest.mark.parametrize(("changes", "sentence"), RUN_REFUSED)
def test_impossible_runs_are_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        tiny_run(**changes)


def test_a_key_with_a_dot_is_to_be_nested(demo):
    with pytest.raises(InputError, match=r"^model.tied is one key .* nest it, as model: \{tied: VALUE\}$"):
        read_experiment({**demo, "model.tied": True})
