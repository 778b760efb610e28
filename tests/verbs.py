"""Verbs in forks of a server that has imported their modules, for tests that need no fresh interpreter.

`tests.shell.sweep` starts one.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.shell import ROOT, environment

LOADED = (
    "sweep.cli.app",
    "sweep.study.laws",
    "sweep.config.compose",
    "sweep.study.run",
    "sweep.report.figures.draw",
    "sweep.store.tables",
    "hydra",
    "omegaconf",
)


def forked(*arguments: object, cwd: Path, timeout_s: int = 200) -> subprocess.CompletedProcess[str]:
    """Run a verb like `tests.shell.sweep`, in a fork with streams, directory and environment of its own."""
    words = [str(word) for word in arguments]
    with tempfile.TemporaryDirectory() as directory:
        files = {name: str(Path(directory) / name) for name in ("stdout", "stderr")}
        request = {"arguments": words, "cwd": str(cwd), "environ": environment(), "timeout_s": timeout_s}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request | files) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        texts = [Path(files[name]).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(["sweep", *words], code, *texts)


@cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.verbs"]
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    server.communicate()


def _serve() -> Mapping[str, Any] | None:
    """Fork for every request. Returns the request in the fork, None in the server at the end of its input."""
    for line in sys.stdin:
        request: Mapping[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            return request
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _become(request: Mapping[str, Any]) -> None:
    """Set up streams, directory, environment and arguments as those of a new process."""
    for number, name in enumerate((os.devnull, request["stdout"], request["stderr"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(name, flags, 0o600), number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = ["-c", *request["arguments"]]
    signal.alarm(request["timeout_s"])


if __name__ == "__main__":
    for module in LOADED:
        __import__(module)
    request = _serve()
    if request is not None:
        from sweep.cli.app import main

        _become(request)
        main()
