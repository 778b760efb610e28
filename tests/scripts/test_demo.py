"""scripts/demo: what it runs, and the environment that it names at the end."""

import os
import shutil
import subprocess

import pytest

from tests.shell import ROOT


@pytest.fixture
def clone(tmp_path):
    """A copy of what scripts/demo reads, with an environment of stubs that print the verbs' arguments."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/demo", "scripts/environment", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, line in (("python", f"echo {tmp_path}/.venv"), ("sweep", 'echo "sweep $*"')):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    return tmp_path


def demo(clone, *arguments, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "SWEEP_TORCH")}
    return subprocess.run(
        [clone / "scripts" / "demo", *arguments],
        env=kept | variables,
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_demo_ends_with_the_command_that_activates_its_environment(clone):
    done = demo(clone, "--validate", "seeds=[0]")
    assert done.stdout.splitlines()[-2:] == [
        "sweep run experiment=demo seeds=[0]",
        "sweep validate 4x experiment=demo seeds=[0]",
    ]
    assert done.stderr.splitlines()[-1].endswith(f"source {clone}/.venv/bin/activate")


def test_an_active_environment_is_used_without_a_word(clone):
    path = f"{clone}/.venv/bin:{os.environ['PATH']}"
    done = demo(clone, VIRTUAL_ENV=f"{clone}/.venv", PATH=path)
    assert "activate" not in done.stderr
