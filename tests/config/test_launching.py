"""The launch section: one class for each launcher, and values that cannot become options of their own."""

from __future__ import annotations

import pytest

from sweep.config import read_experiment, to_dict
from sweep.config.compose import compose_experiment
from sweep.errors import InputError


def refusal(*overrides: str) -> str:
    with pytest.raises(InputError) as refused:
        compose_experiment(["experiment=smoke", *overrides])
    return str(refused.value)


@pytest.mark.parametrize("name", ["local", "slurm", "ray"])
def test_every_launcher_is_complete_and_reads_back_as_it_was_stored(name: str) -> None:
    experiment = compose_experiment(["experiment=smoke", f"launch={name}"])
    assert experiment.launch.name == name
    assert read_experiment(to_dict(experiment)) == experiment


def test_what_sbatch_takes_needs_no_quotes_of_hydras() -> None:
    values = {"partition": "a100,h100", "gres": "gpu:a100:2,license:1", "constraint": "[rack1|rack2]&ib"}
    experiment = compose_experiment(
        ["launch=slurm", *(f"launch.{key}={text}" for key, text in values.items())]
    )
    assert {key: getattr(experiment.launch, key) for key in values} == values


def test_a_stored_plan_of_before_there_were_others_is_still_read() -> None:
    values = to_dict(compose_experiment(["experiment=smoke"]))
    values["launch"] = {"name": "local", "n_workers": 2, "lease_s": 120, "stall_s": 900, "max_failures": 3}
    assert read_experiment(values).launch.n_workers == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("launch.partition=gpu",),
            "no effect with launch=local: it needs launch=slurm",
        ),
        (("launch=slrm",), "choose from local, ray, slurm"),
        (("launch=slurm", "launch.partitoin=gpu"), "did you mean launch.partition"),
        (("launch=slurm", "launch.n_workers=0"), "launch.n_workers=0 is not valid"),
        (("launch.n_workers=1e9",), "it should be less than or equal to 10000"),
        (("launch=slurm", "launch.time=90"), "give [days-]hours:minutes:seconds"),
        (("launch=slurm", "launch.time=10:00"), "give [days-]hours:minutes:seconds"),
        (("launch=slurm", "launch.partition='a\nb'"), "printable characters"),
        (("launch=slurm", "launch.account=''"), "printable characters"),
        (("launch=slurm", "launch.options={output: /etc/passwd}"), "output is not allowed in options"),
        (("launch=slurm", "launch.options={expo: ALL}"), "expo is not allowed in options"),
        (("launch=slurm", "launch.options={wrap: id}"), "wrap is not allowed in options"),
        (("launch=slurm", "launch.options={EXPORT: ALL}"), "is not a long option of sbatch"),
        (("launch=slurm", "launch.options={-p: x}"), "is not a long option of sbatch"),
        (("launch=slurm", "launch.options={qos: 'a\tb'}"), "printable characters"),
        (("launch=slurm", "launch.export=['A,ALL']"), "launch.export"),
        (("launch=slurm", "launch.export=['A=1']"), "launch.export"),
        (("launch=ray", "launch.resources={gpu: -1}"), "launch.resources"),
        (
            ("launch=ray", "launch.gres=gpu:1"),
            "no effect with launch=ray: it needs launch=slurm",
        ),
    ],
)
def test_what_is_refused(overrides: tuple[str, ...], said: str) -> None:
    sentence = refusal(*overrides)
    assert said in sentence
    assert "\n" not in sentence.replace("\\n", "")


def test_a_time_limit_in_a_yaml_file_must_be_quoted() -> None:
    """YAML reads 1:30:00 as the number 5400, which sbatch would take for ninety hours."""
    values = to_dict(compose_experiment(["experiment=smoke", "launch=slurm"]))
    values["launch"]["time"] = 5400
    with pytest.raises(InputError, match="in quotes where it stands in a YAML file"):
        read_experiment(values)
    values["launch"]["time"] = "1-12:00:00"
    assert read_experiment(values).launch.name == "slurm"
