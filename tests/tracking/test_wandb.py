"""Weights & Biases in offline mode: the file to be uploaded is read back record by record."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.config import TrackingConfig
from sweep.config.compose import compose_experiment
from sweep.errors import InputError
from sweep.machine.doctor import packages
from sweep.records import TrackedRun
from sweep.study.plan import diagnose
from sweep.study.run import run_experiment
from sweep.tracking.base import GuardedTracker, NoTracker, track
from sweep.tracking.decision import PROBE_S, Decision, decide, read_decision, write_decision
from sweep.tracking.wandb import START_S
from tests.faults.processes import wait_until
from tests.shell import environment
from tests.study.test_run import SMALL

pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
WANDB = TrackingConfig(name="wandb", project=None, entity=None, mode="auto")
KEY = "0123456789abcdef"
BLOCK, HEADER = 32_768, 7


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))  # which a login writes to


def records(path: Path) -> Iterator[pb.Record]:
    """Yield the records of an offline file: LevelDB's log format, 32 KiB blocks, after a 7-byte header."""
    data, offset, parts = path.read_bytes(), HEADER, b""
    while offset + HEADER <= len(data):
        if BLOCK - offset % BLOCK < HEADER:
            offset += BLOCK - offset % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + HEADER])
        if offset + HEADER + length > len(data):  # still being written
            return
        parts += data[offset + HEADER : offset + HEADER + length]
        offset += HEADER + length
        if kind in (1, 4):
            record = pb.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def content(sweep_dir: Path) -> list[tuple[str, dict, dict, list[dict]]]:
    """Return the id, config, summary and history of every offline run."""
    found = []
    for path in sorted(sweep_dir.glob("wandb/offline-run-*/run-*.wandb")):
        run_id, config, summary, history = "", {}, {}, []
        for record in records(path):
            if record.HasField("run"):
                run_id = record.run.run_id
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("summary"):
                for item in record.summary.update:
                    summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
            if record.HasField("history"):
                history.append(
                    {
                        item.key or item.nested_key[0]: json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
        found.append((run_id, config, summary, history))
    return found


def written(sweep_dir: Path, n_runs: int = 1) -> list[tuple[str, dict, dict, list[dict]]]:
    """Return `content` once every run has its id: wandb writes from a process of its own, with a delay."""
    wait_until(lambda: len([run_id for run_id, *_ in content(sweep_dir) if run_id]) == n_runs)
    return content(sweep_dir)


def tracked(directory: Path) -> TrackedRun:
    write_decision(directory, Decision(mode="offline", reason="a test"))
    return TrackedRun(
        sweep_dir=directory,
        sweep_name="demo",
        run_key=KEY,
        run_name="8e10-d24",
        config={"seed": 3, "n_tokens": 64},
    )


def test_the_offline_file_holds_the_run_its_curve_and_its_point(tmp_path):
    tracker = track(WANDB, tracked(tmp_path))
    for step in (1, 2, 4):
        tracker.log({"step": step, "train_loss": 3.0 / step, "lr": 0.01})
    tracker.finish({"run_key": KEY, "loss": 2.5, "mfu": None})
    wait_until(lambda: "loss" in written(tmp_path)[0][2])
    [(run_id, config, summary, history)] = content(tmp_path)
    assert run_id == KEY
    assert config["seed"] == 3
    assert (summary["loss"], summary["run_key"]) == (2.5, KEY)
    assert [(row["_step"], row["train_loss"]) for row in history] == [(1, 3.0), (2, 1.5), (4, 0.75)]


def test_a_second_attempt_resumes_the_same_run(tmp_path):
    for step in (1, 2):
        tracker = track(WANDB, tracked(tmp_path))
        tracker.log({"step": step, "train_loss": 1.0})
        tracker.finish(None)
    assert [run_id for run_id, *_ in written(tmp_path, n_runs=2)] == [KEY, KEY]


@pytest.fixture
def server():
    """The address of a server that answers every request with 404."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def log_in(url: str) -> None:
    """Store a key as `wandb login` does, in a process of its own."""
    call = f"import wandb; wandb.login(key='{'0' * 40}', host={url!r}, verify=False)"
    subprocess.run([sys.executable, "-c", call], check=True, capture_output=True)


@pytest.mark.ci
def test_without_a_key_it_is_offline(server, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", server)
    decision = decide(WANDB)
    assert decision.mode == "offline"
    assert "run wandb login" in str(decision.reason)
    log_in(server)  # the advice
    assert decide(WANDB) == Decision(mode="online", reason=None)
    assert decide(replace(WANDB, mode="offline")).mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert decide(WANDB) == Decision(mode="offline", reason="WANDB_MODE=offline")
    assert decide(replace(WANDB, mode="online")).mode == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert decide(WANDB).mode == "disabled"


def n_connections(server: socket.socket) -> int:
    """Return how many connections wait to be accepted."""
    server.settimeout(0.0)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


@pytest.mark.ci
def test_a_server_that_refuses_or_is_silent_costs_seconds_and_is_left_out(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        started = time.monotonic()
        decision = decide(replace(WANDB, mode="online"))
        assert decision.mode == "offline"
        assert url in decision.reason
        assert time.monotonic() - started < PROBE_S + 5
        assert n_connections(silent) == 1  # a login, which waits as well, is left out
    assert decide(WANDB).mode == "offline"  # closed now


FAILING = """
import sys, time
from pathlib import Path
from sweep.tracking.base import track
from tests.tracking.test_wandb import KEY, WANDB, tracked
from sweep.tracking.decision import Decision, write_decision
run = tracked(Path(sys.argv[1]))
write_decision(run.sweep_dir, Decision(mode="online", reason=None))
started = time.monotonic()
tracker = track(WANDB, run)
print(time.monotonic() - started)
tracker.log({"step": 1, "train_loss": 1.0})
tracker.finish({"run_key": KEY, "loss": 2.5})
"""


@pytest.mark.ci
def test_a_service_that_fails_after_the_decision_is_left_out_by_all_later_runs(tmp_path, monkeypatch):
    """In a process of its own, since wandb reads its settings once."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        done = subprocess.run(
            [sys.executable, "-c", FAILING, str(tmp_path)], capture_output=True, text=True, env=environment()
        )
    assert done.returncode == 0, done.stderr
    assert "tracking stopped" not in done.stderr
    assert float(done.stdout.splitlines()[-1]) < 3 * START_S
    assert read_decision(tmp_path).mode == "offline"
    assert [run_id for run_id, *_ in written(tmp_path)] == [KEY]


def test_tracking_without_the_package_is_refused_before_training(tmp_path, monkeypatch):
    settings = (*SMALL, "tracking=wandb", f"data_dir={tmp_path / 'data'}", f"results_dir={tmp_path / 'r'}")
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, find=importlib.util.find_spec: None if name == "wandb" else find(name),
    )
    with pytest.raises(InputError, match=r"needs the package wandb: pip install 'sweep\[wandb\]', or set"):
        run_experiment(compose_experiment(settings))
    assert not (tmp_path / "r").exists()
    monkeypatch.setattr(
        packages, "version_of", lambda name, find=packages.version_of: None if name == "wandb" else find(name)
    )
    [check] = [check for check in diagnose(compose_experiment(settings)).checks if check.name == "wandb"]
    assert (check.state, check.remedy) == ("missing", "pip install 'sweep[wandb]'")


def test_a_failing_tracker_logs_one_warning_and_raises_nothing(caplog):
    class Failing(NoTracker):
        def log(self, record):
            raise ConnectionError("no route")

    tracker = GuardedTracker(Failing)
    for step in range(3):
        tracker.log({"step": step})
    tracker.finish({"loss": 1.0})
    assert [record.getMessage() for record in caplog.records] == [
        "tracking stopped, training continues: ConnectionError: no route"
    ]


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "OFFLINE"), ("WANDB_BASE_URL", "nonsense")])
def test_settings_with_which_wandb_does_not_start_are_refused_before_anything_is_written(
    name, value, tmp_path, monkeypatch
):
    monkeypatch.setenv(name, value)
    experiment = compose_experiment(
        [*SMALL, f"results_dir={tmp_path}", f"data_dir={tmp_path}", "tracking=wandb"]
    )
    with pytest.raises(InputError, match=rf"wandb does not start \(.*={value!r}: .*tracking=none$"):
        run_experiment(experiment)
    assert list(tmp_path.rglob("*.json")) == []


def test_a_key_of_another_form_keeps_the_record_offline(server, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    decision = decide(WANDB)
    assert decision.mode == "offline"
    assert "WANDB_API_KEY" in (decision.reason or "")
