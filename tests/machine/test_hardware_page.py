"""docs/hardware.md: every command in it works."""

import pytest

from tests.shell import ROOT, sweep

COMMANDS = [
    line.split()[1:]
    for line in (ROOT / "docs" / "hardware.md").read_text().splitlines()
    if line.startswith("    sweep ")
]


def _case(arguments):
    slow = pytest.mark.long if "--packing" in arguments else pytest.mark.ci  # minutes, or seconds
    return pytest.param(arguments, id=" ".join(arguments), marks=slow)


@pytest.mark.parametrize("arguments", [_case(arguments) for arguments in COMMANDS])
def test_a_command_of_the_page_works(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = sweep(*arguments, f"data_dir={tmp_path / 'data'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_page_shows_some():
    assert len(COMMANDS) == 6
