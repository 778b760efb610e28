"""NVIDIA Multi-Process Service (MPS): processes share a GPU concurrently instead of by time slices."""

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
    """Run an MPS daemon for the GPU `visible` within the block.

    Yields the environment variables with which a process finds it; None if MPS is not available. The pipes
    are in a private directory, so a daemon of another user is neither used nor affected.
    Source: NVIDIA's Multi-Process Service guide, sections on environment variables and on starting and
    stopping the daemon.
    """
    if shutil.which(CONTROL) is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sweep-mps-", ignore_cleanup_errors=True) as directory:
        directories = {"CUDA_MPS_PIPE_DIRECTORY": directory, "CUDA_MPS_LOG_DIRECTORY": directory}
        environment = os.environ | directories | {"CUDA_VISIBLE_DEVICES": visible}
        if not _control(["-d"], environment):
            yield None
            return
        try:
            yield directories
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
