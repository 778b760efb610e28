"""Secrets of the environment and of overrides: they are nowhere in what a sweep writes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sweep.config.compose import compose_experiments
from sweep.credentials import redact
from sweep.errors import InputError
from sweep.store.attempts.attempts import read_attempts
from sweep.tracking.base import GuardedTracker
from sweep.worker.__main__ import main, work
from tests.shell import command, environment
from tests.study.test_run import SMALL
from tests.toy_trainer import toy_sweep

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
    """Files below `directory` that hold a canary, as text or as the name."""
    found = []
    for path in directory.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        found += [
            f"{name} in {path}"
            for name, value in CANARIES.items()
            if value.encode() in content or value in path.name or value.encode("utf-16-le") in content
        ]
    return found


def test_the_search_finds_a_planted_one(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_text("x" + CANARIES["HF_TOKEN"] + "x")
    assert len(leaks(tmp_path)) == 1


@pytest.mark.ci
def test_a_real_sweep_with_tracking_writes_none(tmp_path, secrets):
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
        assert list(root.glob(kind)), kind  # what would leak is there
    assert leaks(tmp_path) == []
    assert not any(value in done.stdout + done.stderr for value in CANARIES.values())


def test_a_failing_run_quotes_none(tmp_path, secrets, capsys):
    """An error of a library may carry the URL or the header it was sent with."""
    store = toy_sweep(tmp_path, 1, max_failures=1)
    quoted = " ".join(CANARIES.values()) + " postgresql://me:unheard-of@host/db"

    def broken(run, placement, session):
        raise ConnectionError(f"401 for Authorization: {quoted}")

    work(tmp_path, train=broken)
    [attempt] = read_attempts(next((tmp_path / "runs").iterdir()))
    assert "[HF_TOKEN]" in attempt.reason
    assert "ConnectionError" in (attempt.path / "error.txt").read_text()
    assert leaks(tmp_path) == []
    assert "unheard-of" not in (attempt.path / "error.txt").read_text() + attempt.reason
    assert "401" in store.status().runs[0].reason


def test_a_bug_of_the_worker_quotes_none(tmp_path, secrets, capsys, monkeypatch):
    toy_sweep(tmp_path, 1)

    def broken(*_, **__):
        raise AssertionError(f"impossible: {CANARIES['GITHUB_TOKEN']}")

    monkeypatch.setattr("sweep.worker.__main__.work", broken)
    assert main([str(tmp_path)], train=broken) == 70
    said = capsys.readouterr().err
    assert "AssertionError: impossible: [GITHUB_TOKEN]" in said


def test_a_failing_tracker_quotes_none(secrets, caplog):
    def start():
        raise ValueError(f"invalid key {CANARIES['WANDB_API_KEY']}")

    GuardedTracker(start)
    assert "invalid key [WANDB_API_KEY]" in caplog.text


@pytest.mark.parametrize(
    "override",
    [
        *(
            f"{key}={value}"
            for key in ("name", "results_dir", "data_dir")
            for value in ("{WANDB_API_KEY}", "{HF_TOKEN}")
        ),
        "tracking.api_key={WANDB_API_KEY}",
        "+tracking.api_key={WANDB_API_KEY}",
        "+hf_token={HF_TOKEN}",
        "tracking.project={AWS_ACCESS_KEY_ID}",
        "tracking.entity='{AWS_SECRET_ACCESS_KEY}'",
        "tracking.entity={GITHUB_TOKEN}",
        "tracking.project={OPENAI_API_KEY}",
        "data_dir=/x/{PGPASSWORD}/y",
        "results_dir=https://me:a-password-nobody-set@host/x",
        "arms={{tracking.project:[a,{HF_TOKEN}]}}",
    ],
)
@pytest.mark.parametrize("is_set", [True, False])
def test_a_secret_typed_as_an_override_is_refused_unquoted(tmp_path, monkeypatch, override, is_set):
    """By its shape alone where it has one; any value where the environment holds it too."""
    typed = override.format(**CANARIES)
    shapeless = any(CANARIES[name] in typed for name in ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD"))
    if shapeless and not is_set:
        return  # nobody can tell it from any other text
    if is_set:
        for name, value in CANARIES.items():
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        compose_experiments(["experiment=smoke", typed])
    assert not any(value in str(refused.value) for value in CANARIES.values())
    assert "a-password-nobody-set" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_commit_is_no_secret():
    revision = "0123456789abcdef" * 2 + "01234567"
    assert compose_experiments(
        ["experiment=smoke", "data=huggingface", "data.dataset=a/b", f"data.revision={revision}"]
    )


def test_ordinary_text_is_left_as_it_is(monkeypatch):
    for name in [name for name in os.environ if "TOKEN" in name or "KEY" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-not")
    monkeypatch.setenv("SHORT_TOKEN", "step")
    text = "ValueError: at step 12 of s3://bucket/x@y, false-or-not, sk-1, hf_hub, mail me@example.org:8080/x"
    assert redact(text) == text
