"""The launch section: one class for each launcher, and values that cannot smuggle in options of sbatch."""

from __future__ import annotations

import pytest

from sweep.config import read_experiment, to_dict
from sweep.config.compose import compose_experiment
from sweep.errors import InputError
from tests.configs import composed


@pytest.mark.parametrize("name", ["local", "slurm", "ray"])
def test_every_launcher_is_complete_and_reads_back_as_it_was_stored(name: str) -> None:
    experiment = composed("experiment=smoke", f"launch={name}")
    assert experiment.launch.name == name
    assert read_experiment(to_dict(experiment)) == experiment


def test_values_for_sbatch_need_no_quotes_of_hydra() -> None:
    values = {"partition": "a100,h100", "gres": "gpu:a100:2,license:1", "constraint": "[rack1|rack2]&ib"}
    experiment = compose_experiment(
        ["launch=slurm", *(f"launch.{key}={text}" for key, text in values.items())]
    )
    assert {key: getattr(experiment.launch, key) for key in values} == values


def test_a_stored_plan_of_a_version_with_one_launcher_is_still_read() -> None:
    values = to_dict(composed("experiment=smoke"))
    values["launch"] = {"name": "local", "n_workers": 2, "lease_s": 120, "stall_s": 900, "max_failures": 3}
    assert read_experiment(values).launch.n_workers == 2


def test_an_unknown_launcher_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="launch=slrm not found: choose from local, ray, slurm"):
        compose_experiment(["launch=slrm"])


@pytest.mark.parametrize(
    ("launch", "key", "value", "sentence"),
    [
        ("local", "partition", "gpu", "no effect with launch=local: it needs launch=slurm"),
        ("slurm", "partitoin", "gpu", "did you mean launch.partition"),
        ("slurm", "n_workers", 0, "launch.n_workers=0 is not valid"),
        ("local", "n_workers", 1e9, "it should be less than or equal to 10000"),
        ("slurm", "time", 90, "give [days-]hours:minutes:seconds"),
        ("slurm", "time", "10:00", "give [days-]hours:minutes:seconds"),
        ("slurm", "time", 5400, "in quotes where it stands in a YAML file"),  # YAML's reading of 1:30:00
        ("slurm", "partition", "a\nb", "printable characters"),
        ("slurm", "account", "", "printable characters"),
        ("slurm", "options", {"output": "/etc/passwd"}, "output is not allowed in options"),
        ("slurm", "options", {"expo": "ALL"}, "expo is not allowed in options"),
        ("slurm", "options", {"wrap": "id"}, "wrap is not allowed in options"),
        ("slurm", "options", {"EXPORT": "ALL"}, "is not a long option of sbatch"),
        ("slurm", "options", {"-p": "x"}, "is not a long option of sbatch"),
        ("slurm", "options", {"qos": "a\tb"}, "printable characters"),
        ("slurm", "export", ["A,ALL"], "launch.export"),
        ("slurm", "export", ["A=1"], "launch.export"),
        ("ray", "resources", {"gpu": -1}, "launch.resources"),
        ("ray", "gres", "gpu:1", "no effect with launch=ray: it needs launch=slurm"),
    ],
)
def test_a_value_that_is_not_valid_is_refused(launch: str, key: str, value: object, sentence: str) -> None:
    values = to_dict(composed("experiment=smoke", f"launch={launch}"))
    values["launch"][key] = value
    with pytest.raises(InputError) as refused:
        read_experiment(values)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value).replace("\\n", "")


def test_a_time_limit_is_text() -> None:
    values = to_dict(composed("experiment=smoke", "launch=slurm"))
    values["launch"]["time"] = "1-12:00:00"
    assert read_experiment(values).launch.time == "1-12:00:00"
