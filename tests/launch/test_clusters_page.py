"""docs/clusters.md: its commands work, and it documents every key."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from sweep.config import LocalLaunch, RayLaunch, SlurmLaunch
from sweep.config.compose import compose_experiment
from sweep.launch.slurm import EXPORTED
from tests.launch import fake_slurm
from tests.shell import ROOT, sweep

PAGE = (ROOT / "docs" / "clusters.md").read_text("utf-8")
COMMANDS = [
    line.split()[1:]
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
SMALL = (
    "budgets=[5e8]",
    "grid.d_model=[8]",
    "grid.min_steps=5",
    "batch_tokens=64",
    "evaluation.n_tokens=8192",
)


def test_the_page_shows_every_launcher() -> None:
    assert len(COMMANDS) == 8
    words = {word for command in COMMANDS for word in command}
    assert {"launch=slurm", "launch=ray", "--detach", "worker", "cancel"} <= words


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "run"], ids=" ".join)
def test_the_settings_of_a_command_are_valid(command: list[str]) -> None:
    experiment = compose_experiment([word for word in command[1:] if "=" in word])
    assert experiment.name == "smoke"


@pytest.mark.ci
def test_the_commands_of_a_sweep_in_the_background_work(tmp_path: Path) -> None:
    for verb, *words in COMMANDS[:3]:
        settings = [*SMALL, "launch.n_workers=1", f"data_dir={tmp_path / 'data'}"] if verb == "run" else []
        done = sweep(verb, *words, *settings, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    joined = sweep(*COMMANDS[-1], cwd=tmp_path)
    assert joined.returncode in (0, 75), joined.stderr  # cancelled, unless all was done by then


def test_a_detached_submission_returns_and_says_how_to_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself, submitted to a queue without nodes."""
    tools = fake_slurm.install(tmp_path / "slurm")
    (tools / "sbatch").write_text("#!/bin/sh\necho 7\n")
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    command = next(words for words in COMMANDS if "launch=slurm" in words)
    done = sweep(*command, *SMALL, f"data_dir={tmp_path / 'data'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in (
        "sweep status results/smoke --watch",
        "sweep cancel results/smoke",
        "sweep fit results/smoke",
    ):
        assert word in done.stdout


def test_every_key_and_variable_is_on_the_page() -> None:
    shared = {field.name for field in fields(LocalLaunch)}
    for launch in (SlurmLaunch, RayLaunch):
        for name in {field.name for field in fields(launch)} - shared:
            assert re.search(rf"`(launch\.)?{name}`", PAGE), name
    for name in set(EXPORTED) - {"USER", "LC_ALL", "XDG_CACHE_HOME"}:
        assert f"`{name}`" in PAGE
