"""Weights & Biases tracker: one group per sweep, one wandb run per run key, the point as its summary."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sweep.config import TrackingConfig
from sweep.records import TrackedRun

DEFAULT_URL = "https://api.wandb.ai"  # wandb's server unless WANDB_BASE_URL is set


class WandbTracker:
    """One wandb run; later attempts at the same run resume it under its id."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, record: Mapping[str, Any]) -> None:
        """Log metrics at their optimizer step, and events, which have none, at the current step."""
        self._run.log(dict(record), step=record.get("step"))

    def finish(self, point: Mapping[str, Any] | None) -> None:
        """Set the point as the summary; an attempt without a point ends with exit code 1."""
        if point is not None:
            self._run.summary.update({key: value for key, value in point.items() if value is not None})
        self._run.finish(exit_code=0 if point is not None else 1)


def start_wandb(config: TrackingConfig, tracked: TrackedRun) -> WandbTracker:
    """Start or resume the wandb run of a run key.

    Only metrics, config and point are recorded. Console output, system statistics, code, git state and the
    description of the machine are switched off: command lines and paths may contain secrets.
    """
    import wandb

    mode = config.mode if config.mode != "auto" else ("online" if _has_key() else "offline")
    settings = wandb.Settings(
        mode=mode,
        root_dir=str(tracked.sweep_dir),
        console="off",
        silent=True,
        save_code=False,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
    )
    run = wandb.init(
        project=config.project or tracked.sweep_name,
        entity=config.entity,
        group=tracked.sweep_name,
        id=tracked.run_key,
        name=tracked.run_name,
        resume="allow",
        config=dict(tracked.config),
        settings=settings,
    )
    return WandbTracker(run)


def _has_key() -> bool:
    """Return True if the environment or the netrc file has an API key; contacts no server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", DEFAULT_URL)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
