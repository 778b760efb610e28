"""Secrets in the environment and in overrides are never written to a sweep's files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sweep.config.compose import compose_experiments
from sweep.credentials import redact, refuse_credentials
from sweep.errors import InputError
from sweep.store.attempts.attempts import read_attempts
from sweep.tracking.base import GuardedTracker
from sweep.worker.__main__ import main, work
from tests.shell import command, environment
from tests.study.test_run import SMALL
from tests.toy_trainer import toy_sweep
from tests.tracking.test_wandb import content

CANARIES = {
    "WANDB_API_KEY": "c0ffee" * 6 + "c0ff",
    "HF_TOKEN": "hf_" + "CanaryCanaryCanary",
    "AWS_ACCESS_KEY_ID": "AKIA" + "CANARYCANARYCANA"[:16],
    "AWS_SECRET_ACCESS_KEY": "canary/secret+access/key",
    "GITHUB_TOKEN": "ghp_" + "canary" * 6,
    "OPENAI_API_KEY": "sk-" + "canary" * 6,
    "PGPASSWORD": "canary-password",
    "MY_DB_PASSPHRASE": "canary passphrase",
}


@pytest.fixture
def secrets(monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)


def leaks(directory: Path) -> list[str]:
    """Return the files below `directory` with a canary in their content or name."""
    found = []
    for path in directory.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        found += [
            f"{name} in {path}"
            for name, value in CANARIES.items()
            if value.encode() in content or value in path.name or value.encode("utf-16-le") in content
        ]
    return found


def test_the_search_finds_a_leak(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_text("x" + CANARIES["HF_TOKEN"] + "x")
    assert len(leaks(tmp_path)) == 1


@pytest.mark.ci
def test_a_real_sweep_is_tracked_and_leaks_nothing(tmp_path, secrets):
    options = [
        "budgets=[5e8]",
        "grid.d_model=[16,24]",
        "launch.n_workers=1",
        "tracking=wandb",
        "tracking.mode=offline",
        "fit.n_bootstrap=2",
    ]
    done = subprocess.run(
        command("run", *SMALL, *options, f"data_dir={tmp_path / 'data'}"),
        cwd=tmp_path,
        env=environment() | {"WANDB_DIR": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    root = tmp_path / "results/smoke"
    for kind in ("plans/*.json", "logs/*.log", "runs/*/result.json", "wandb/offline-run-*/run-*.wandb"):
        assert list(root.glob(kind)), kind  # files that could leak exist
    assert leaks(tmp_path) == []
    assert not any(value in done.stdout + done.stderr for value in CANARIES.values())
    assert "2 offline runs of wandb: wandb sync results/smoke/wandb/offline-run-*" in done.stderr
    results = {path.parent.name: json.loads(path.read_text()) for path in root.glob("runs/*/result.json")}
    shown = {run_id: summary["loss"] for run_id, _, summary, _ in content(root)}
    assert shown == {key: pytest.approx(result["point"]["loss"]) for key, result in results.items()}
    assert len(shown) == 2


def test_a_failing_run_leaks_nothing(tmp_path, secrets, capsys):
    """An error of a library may contain the URL or header of its request."""
    store = toy_sweep(tmp_path, 1, max_failures=1)
    secrets_in_error = " ".join(CANARIES.values()) + " postgresql://me:unset-anywhere@host/db"

    def broken(run, placement, session):
        raise ConnectionError(f"401 for Authorization: {secrets_in_error}")

    work(tmp_path, train=broken)
    [attempt] = read_attempts(next((tmp_path / "runs").iterdir()))
    assert "[HF_TOKEN]" in attempt.reason
    assert "ConnectionError" in (attempt.path / "error.txt").read_text()
    assert leaks(tmp_path) == []
    assert "unset-anywhere" not in (attempt.path / "error.txt").read_text() + attempt.reason
    assert "401" in store.status().runs[0].reason


def test_a_bug_in_the_worker_leaks_nothing(tmp_path, secrets, capsys, monkeypatch):
    toy_sweep(tmp_path, 1)

    def broken(*_, **__):
        raise AssertionError(f"impossible: {CANARIES['GITHUB_TOKEN']}")

    monkeypatch.setattr("sweep.worker.__main__.work", broken)
    assert main([str(tmp_path)], train=broken) == 70
    error = capsys.readouterr().err
    assert "AssertionError: impossible: [GITHUB_TOKEN]" in error


def test_a_failing_tracker_leaks_nothing(secrets, caplog):
    def start():
        raise ValueError(f"invalid key {CANARIES['WANDB_API_KEY']}")

    GuardedTracker(start)
    assert "invalid key [WANDB_API_KEY]" in caplog.text


OVERRIDES = [
    "name={WANDB_API_KEY}",
    "results_dir={HF_TOKEN}",
    "data_dir=/x/{PGPASSWORD}/y",
    "tracking.api_key={WANDB_API_KEY}",
    "+tracking.api_key={WANDB_API_KEY}",
    "+hf_token={HF_TOKEN}",
    "tracking.project={AWS_ACCESS_KEY_ID}",
    "tracking.entity='{AWS_SECRET_ACCESS_KEY}'",
    "tracking.entity={GITHUB_TOKEN}",
    "store.index_url={OPENAI_API_KEY}",
    "results_dir=https://me:a-password-nobody-set@host/x",
    "arms={{tracking.project:[a,{HF_TOKEN}]}}",
]


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_secret_in_an_override_is_rejected_and_not_quoted(tmp_path, monkeypatch, secrets, override):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as rejected:
        compose_experiments(["experiment=smoke", override.format(**CANARIES)])
    assert not any(value in str(rejected.value) for value in CANARIES.values())
    assert "a-password-nobody-set" not in str(rejected.value)
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_recognised_without_its_variable():
    """By its pattern, or as a W&B key; passwords and passphrases have no pattern."""
    unrecognisable = {"AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "MY_DB_PASSPHRASE"}
    for name, value in CANARIES.items():
        config = {"tracking": {"project": ["a", value]}}
        if name in unrecognisable:
            refuse_credentials(config)
            continue
        with pytest.raises(InputError, match=r"^tracking\.project contains an? ") as rejected:
            refuse_credentials(config)
        assert value not in str(rejected.value)


def test_a_commit_is_not_a_secret():
    revision = "0123456789abcdef" * 2 + "01234567"
    assert compose_experiments(
        ["experiment=smoke", "data=huggingface", "data.dataset=a/b", f"data.revision={revision}"]
    )


def test_ordinary_text_is_unchanged(monkeypatch):
    for name in [name for name in os.environ if "TOKEN" in name or "KEY" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-not")
    monkeypatch.setenv("SHORT_TOKEN", "step")
    text = "ValueError: at step 12 of s3://bucket/x@y, false-or-not, sk-1, hf_hub, mail me@example.org:8080/x"
    assert redact(text) == text
