"""Checks of the Ray launcher before anything is sent to a cluster, with or without Ray installed."""

from __future__ import annotations

import _thread
import http.server
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sweep.config import RayLaunch
from sweep.errors import InputError, SafetyError
from sweep.identity import code_version
from sweep.launch import ray as launching
from sweep.launch.ray import RayLauncher, check_enforced, check_token, run_task
from sweep.launch.spec import LaunchSpec, read_spec
from tests.faults.processes import wait_until
from tests.toy_trainer import toy_sweep

FAR = RayLaunch(name="ray", n_workers=1, lease_s=120, stall_s=900, max_failures=3, address="head:6379")


def test_a_cluster_without_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_ray_version", lambda: "2.60.0")
    with pytest.raises(SafetyError, match=r"RAY_AUTH_MODE=token.*launch.allow_insecure=true") as refused:
        check_token(FAR, {})
    assert refused.value.exit_code == 3
    with pytest.raises(SafetyError):
        check_token(FAR, {"RAY_AUTH_MODE": "disabled"})
    check_token(FAR, {"RAY_AUTH_MODE": "token"})


def test_a_ray_that_knows_no_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_ray_version", lambda: "2.51.1")
    with pytest.raises(SafetyError, match=r"ray>=2\.52"):
        check_token(FAR, {"RAY_AUTH_MODE": "token"})


def test_the_refusal_can_be_overruled_and_does_not_concern_a_cluster_of_our_own() -> None:
    from dataclasses import replace

    check_token(replace(FAR, allow_insecure=True), {})
    check_token(replace(FAR, address=None), {})


@pytest.fixture
def dashboard() -> Iterator[tuple[str, dict[str, str]]]:
    """A dashboard with the answer set by the test."""
    answer: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/api/authentication_mode"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", answer
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_cluster_that_asks_for_no_token_is_found_out(dashboard: tuple[str, dict[str, str]]) -> None:
    url, answer = dashboard
    answer["authentication_mode"] = "disabled"
    with pytest.raises(SafetyError, match="authentication disabled"):
        check_enforced(url)
    answer["authentication_mode"] = "token"
    check_enforced(url)
    check_enforced("127.0.0.1:1")  # no dashboard there


def test_ray_that_is_not_installed_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'sweep\[ray\]'"):
        RayLauncher(FAR, LaunchSpec(sweep_dir=str(tmp_path), device="cpu"))


def test_a_task_starts_a_worker_and_no_further_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "check_cluster", lambda launch: None)
    store = toy_sweep(tmp_path / "sweep", 1)
    detached = LaunchSpec(sweep_dir=str(store.sweep_dir), launcher="ray")  # of the supervisor that submits
    spec = RayLauncher(FAR, detached)._spec
    assert spec.launcher == "local"
    assert read_spec(spec.argument()).launcher == "local"


def test_a_task_begins_nothing_where_the_sweep_is_not_seen_or_the_code_is_another(tmp_path: Path) -> None:
    unseen = run_task(LaunchSpec(sweep_dir=str(tmp_path / "away")).argument(), "any")
    assert unseen["code"] == 2
    assert "away not found on" in unseen["reason"]
    store = toy_sweep(tmp_path / "sweep", 1)
    other = run_task(LaunchSpec(sweep_dir=str(store.sweep_dir)).argument(), "0.0+other")
    assert other["code"] == 2
    assert "install the same version" in other["reason"]


def test_a_cancelled_task_stops_its_supervisor_where_interrupts_were_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = toy_sweep(tmp_path / "sweep", 1)
    (store.sweep_dir / "logs").mkdir(exist_ok=True)
    started = tmp_path / "started"
    command = ["sh", "-c", f"echo $$ > {started}; exec sleep 60"]
    monkeypatch.setattr(launching, "supervisor_command", lambda spec: command)

    def cancel() -> None:
        wait_until(lambda: started.exists() and bool(started.read_text()))
        _thread.interrupt_main()  # as Ray does

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    cancelling = threading.Thread(target=cancel)
    try:
        cancelling.start()
        with pytest.raises(KeyboardInterrupt):
            run_task(LaunchSpec(sweep_dir=str(store.sweep_dir)).argument(), code_version())
    finally:
        cancelling.join()
        signal.signal(signal.SIGINT, before)
    assert not psutil.pid_exists(int(started.read_text()))
