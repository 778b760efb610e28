"""Weights & Biases tracker: one group per sweep, one wandb run per run key, the point as its summary."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from sweep.config import TrackingConfig
from sweep.credentials import redact
from sweep.records import TrackedRun
from sweep.tracking.decision import Decision, Mode, decide, read_decision, write_decision

START_S = 10.0  # for the service to accept a run
FINISH_S = 10.0  # for it to receive the rest of a run; what is left stays on disk for wandb sync

log = logging.getLogger(__name__)


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
    """Start or resume the wandb run of a run key, in the mode decided for the sweep.

    Where the service does not answer within START_S seconds, this run and the later ones of the sweep are
    recorded offline. Only metrics, config and point are recorded. Console output, system statistics, code,
    git state and the description of the machine are switched off: command lines and paths may contain
    secrets.
    """
    decision = read_decision(tracked.sweep_dir)
    mode: Mode = decision.mode if decision is not None else decide(config).mode
    try:
        return WandbTracker(_start(config, tracked, mode))
    except Exception as error:
        if mode != "online":
            raise
        reason = f"{type(error).__name__}: {redact(str(error))}"
        write_decision(tracked.sweep_dir, Decision(mode="offline", reason=reason))
        log.warning("wandb does not answer, this and later runs are recorded offline: %s", reason)
        _forget_run()
        return WandbTracker(_start(config, tracked, "offline"))


def _forget_run() -> None:
    """Leave wandb's service, which holds the id of the run that could not be started.

    A service inherited from the parent process goes on after the teardown, so its address is removed too.
    """
    import wandb

    wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)


def _start(config: TrackingConfig, tracked: TrackedRun, mode: Mode) -> Any:
    import wandb

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
    if mode == "online":  # offline, a timeout would only lose the record of a run on a busy machine
        settings.init_timeout = START_S
        if "finish_timeout" in wandb.Settings.model_fields:  # of newer versions
            settings.finish_timeout = FINISH_S
    return wandb.init(
        project=config.project or tracked.sweep_name,
        entity=config.entity,
        group=tracked.sweep_name,
        id=tracked.run_key,
        name=tracked.run_name,
        resume="allow",
        config=dict(tracked.config),
        settings=settings,
    )
