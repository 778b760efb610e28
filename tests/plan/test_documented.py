"""The commands of docs/architectures.md make plans."""

import shlex
from pathlib import Path

import pytest

from sweep.plan.grid import make_plan
from sweep.records import Dataset
from tests.configs import composed

TEXT = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
COMMANDS = [line for line in TEXT.splitlines() if line.startswith(("sweep plan", "sweep run"))]


def test_there_are_commands():
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_makes_a_plan(command):
    experiment = composed(*shlex.split(command)[2:])
    dataset = Dataset(
        corpus="test",
        corpus_sha256="0" * 64,
        tokenizer=experiment.tokenizer.name,
        tokenizer_sha256="1" * 64,
        vocab_size=experiment.tokenizer.vocab_size,
        n_train_tokens=100_000_000,
    )
    planned = make_plan(experiment, dataset)
    assert len(planned.runs) >= 8
