"""NVIDIA's multi-process service, by which processes share a GPU at the same time instead of in turns."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping

CONTROL = "nvidia-cuda-mps-control"
TIMEOUT_S = 20.0


@contextlib.contextmanager
def mps_daemon(visible: str) -> Iterator[Mapping[str, str] | None]:
    """A daemon of our own for the GPU `visible`, ended with the block; None where none may be started.

    Gives the environment by which a process finds it. Source: NVIDIA's Multi-Process Service guide, sections
    on environment variables and on starting and stopping the daemon. Its pipes lie in a private directory, so
    a service that others run is neither used nor disturbed.
    """
    if shutil.which(CONTROL) is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sweep-mps-", ignore_cleanup_errors=True) as directory:
        found_by = {"CUDA_MPS_PIPE_DIRECTORY": directory, "CUDA_MPS_LOG_DIRECTORY": directory}
        environment = os.environ | found_by | {"CUDA_VISIBLE_DEVICES": visible}
        if not _control(["-d"], environment):
            yield None
            return
        try:
            yield found_by
        finally:
            _control([], environment, "quit\n")


def _control(arguments: list[str], environment: Mapping[str, str], text: str = "") -> bool:
    try:
        done = subprocess.run(
            [CONTROL, *arguments],
            input=text,
            text=True,
            env=dict(environment),
            timeout=TIMEOUT_S,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
