"""Fast calls of verbs: a server with the modules loaded forks a process for each call.

For tests that do not depend on a new interpreter; `tests.shell.sweep` starts one.
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
    "hydra",
    "omegaconf",
)


def forked(*arguments: object, cwd: Path, timeout_s: int = 200) -> subprocess.CompletedProcess[str]:
    """Run a verb like `tests.shell.sweep`, in a fork with its own streams, directory and environment."""
    words = [str(word) for word in arguments]
    with tempfile.TemporaryDirectory() as directory:
        outputs = {name: str(Path(directory) / name) for name in ("stdout", "stderr")}
        request = {"arguments": words, "cwd": str(cwd), "environ": environment(), "timeout_s": timeout_s}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request | outputs) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        texts = [Path(outputs[name]).read_text() for name in ("stdout", "stderr")]
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
    """Fork for every request and return it in the fork; return None in the server after the last request."""
    for line in sys.stdin:
        request: Mapping[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            return request
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _become(request: Mapping[str, Any]) -> None:
    """Take over the streams, directory, environment and arguments of a request."""
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
    accepted = _serve()
    if accepted is not None:
        from sweep.cli.app import main

        _become(accepted)
        main()
