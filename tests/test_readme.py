"""The commands in README.md exist and compose the experiments that they name."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

import sweep
from sweep.cli.app import app
from sweep.config.compose import compose_experiments
from tests.verbs import forked

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = [line.partition("  #")[0].strip() for line in TEXT.splitlines() if line.startswith("    sweep ")]
COMPOSED = [command for command in COMMANDS if shlex.split(command)[1] in ("plan", "run")]


def test_the_table_lists_every_verb():
    command = typer.main.get_command(app)
    listed = set(re.findall(r"^\| `sweep ([a-z-]+)", TEXT, re.MULTILINE))
    assert listed == set(command.commands)


@pytest.mark.parametrize("command", COMPOSED)
def test_a_command_composes_its_experiment(command, tmp_path, monkeypatch):
    (file,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    experiments = tmp_path / "configs" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "mine.yaml").write_text(file)
    monkeypatch.chdir(tmp_path)
    overrides = shlex.split(command)[2:]
    arms = compose_experiments(overrides)
    assert len(arms) == (2 if "arms=" in command else 1)
    if "experiment=mine" in overrides:
        assert arms[0].grid.n_sizes == 4


def test_the_first_command_predicts(tmp_path):
    assert len(COMPOSED) >= 6
    first = next(command for command in COMMANDS if "predict" in command)
    done = forked(*shlex.split(first)[1:], cwd=tmp_path)
    assert done.returncode == 0
    assert "2.792e9" in done.stdout


def test_python_uses_exported_names():
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    names = set(re.findall(r"\bsweep\.(\w+)\(", block))
    assert len(names) >= 4
    assert names <= set(sweep.__all__)
    compile(block, "README.md", "exec")
