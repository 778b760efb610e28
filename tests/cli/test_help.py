"""The groups of verbs in --help, the examples of each verb, and shell completion."""

import re
import shlex
import subprocess
import sys

import typer.main

from sweep.cli.app import app
from sweep.cli.completion import complete_directory, complete_directory_or_setting, complete_setting
from sweep.cli.help import GROUPS, OTHER
from tests.shell import environment
from tests.verbs import forked

VERBS = typer.main.get_command(app).commands


def test_the_verbs_are_listed_in_groups(tmp_path):
    shown = forked("--help", cwd=tmp_path).stdout
    headings = [group for group in GROUPS if f"\n{group}:\n" in shown]
    assert headings == [group for group in GROUPS if group != OTHER], "give a new verb one of the groups"
    for name in VERBS:
        assert re.search(rf"^  {name} +[A-Z]", shown, re.MULTILINE), name
    assert "..." not in shown.split("Every day:")[1], "the first sentence of a verb fits into its line"


def test_every_verb_has_examples_that_parse(tmp_path):
    for name, verb in VERBS.items():
        if name == "data":
            continue
        lines = [line.strip() for line in verb.epilog.splitlines() if line.startswith("  sweep ")]
        assert lines, f"sweep {name} --help shows no example"
        for line in lines:
            words = shlex.split(line)
            assert words[1] == name
            with verb.make_context(name, words[2:]) as context:  # raises for an unknown option
                assert context.params


def test_the_version_is_printed(tmp_path):
    assert re.fullmatch(r"sweep \d+\.\d+\S*\n", forked("--version", cwd=tmp_path).stdout)


def test_arguments_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("results/one/plans", "results/two/plans", "results/none", "configs/experiment"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "configs/experiment/mine.yaml").touch()
    assert complete_directory("") == ["results/one", "results/two"]
    assert complete_directory("results/n") == ["results/none/"]
    assert "experiment=mine" in complete_setting([], "exp")
    assert complete_setting([], "experiment=smo") == ["experiment=smoke"]
    assert complete_setting(["plan", "experiment", "="], "mi") == ["mine"]  # bash cuts words at =
    assert complete_directory_or_setting(["status", "experiment", "="], "mi") == ["mine"]
    assert complete_directory_or_setting(["status"], "results/o") == ["results/one", "results/one/"]


def test_completion_imports_nothing_slow(tmp_path):
    program = (
        "import atexit, sys\n"
        "from sweep.cli.app import app\n"
        "atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))\n"
        "app(prog_name='sweep')"
    )
    words = {"_SWEEP_COMPLETE": "complete_bash", "COMP_WORDS": "sweep plan experiment=smo", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment() | words,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["experiment=smoke"]
    for slow in ("torch", "pandas", "numpy", "hydra", "matplotlib", "scipy", "sweep.config"):
        assert f"'{slow}'" not in done.stderr
