"""README.md: its blocks print what it shows; docs/verbs.md names the verbs and experiments there are."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer.main

import sweep
from sweep.cli.app import app
from sweep.config.compose import compose_experiments
from tests.verbs import forked

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
VERBS = (ROOT / "docs" / "verbs.md").read_text()
COMMANDS = [line.partition("  #")[0].strip() for line in VERBS.splitlines() if line.startswith("    sweep ")]
COMPOSED = [command for command in COMMANDS if shlex.split(command)[1] in ("plan", "run")]
ELISION = "..."


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 100


def console_blocks() -> list[tuple[str, list[str]]]:
    """Return each command of the console blocks, in order, with the lines of its output."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def shows(shown: list[str], printed: list[str]) -> bool:
    """Return whether the output is as shown, where ELISION stands for any number of lines."""
    if not shown:
        return not printed
    if shown[0] == ELISION:
        return any(shows(shown[1:], printed[start:]) for start in range(len(printed) + 1))
    return bool(printed) and shown[0] == printed[0] and shows(shown[1:], printed[1:])


@pytest.mark.ci
def test_the_blocks_print_what_they_show(tmp_path):
    """The points are those of the demo, so that its numbers stand in README.md and in its points alone."""
    reference = tmp_path / "results" / "reference"
    shutil.copytree(ROOT / "results" / "reference" / "demo", reference / "demo")
    blocks = console_blocks()
    assert len(blocks) >= 6
    done_before: dict[str, list[str]] = {}
    for command, shown in blocks:
        if command not in done_before:
            done = forked(*shlex.split(command)[1:], cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            done_before[command] = done.stdout.splitlines()
        printed = done_before[command]
        assert shows(shown, printed), f"$ {command}\n" + "\n".join(printed)


def test_an_elision_stands_for_any_lines():
    assert shows(["a", ELISION], ["a", "b"])
    assert shows([ELISION, "b"], ["a", "b"])
    assert not shows(["a"], ["a", "b"])
    assert not shows([ELISION, "c"], ["a", "b"])


def test_the_table_lists_every_verb():
    command = typer.main.get_command(app)
    listed = set(re.findall(r"^\| `sweep ([a-z-]+)", VERBS, re.MULTILINE))
    assert listed == set(command.commands)


@pytest.mark.parametrize("command", COMPOSED)
def test_a_command_composes_its_experiment(command, tmp_path, monkeypatch):
    (file,) = re.findall(r"^```yaml\n(.*?)^```$", VERBS, re.MULTILINE | re.DOTALL)
    experiments = tmp_path / "configs" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "mine.yaml").write_text(file)
    monkeypatch.chdir(tmp_path)
    overrides = shlex.split(command)[2:]
    arms = compose_experiments(overrides)
    assert len(arms) == (2 if "arms=" in command else 1)
    if "experiment=mine" in overrides:
        assert arms[0].grid.n_sizes == 4


def test_python_uses_exported_names():
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    names = set(re.findall(r"\bsweep\.(\w+)\(", block))
    assert names == {"open_sweep", "fit_table"}
    assert names <= set(sweep.__all__)
    methods = set(re.findall(r"\bstudy\.(\w+)\(", block))
    assert {"points", "fit", "answer", "figure"} <= methods
    from sweep.study.sweep import Sweep

    assert all(callable(getattr(Sweep, name)) for name in methods)
    compile(block, "README.md", "exec")
