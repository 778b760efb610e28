"""Summary of a sweep's hyperparameter check, read from hparams.json without importing the fitter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweep.store.files import read_json
from sweep.store.status import SweepStatus

HPARAMS = "hparams.json"  # in the directory of the sweep
UNMEASURED = "unmeasured"
SCHEMA_VERSION = 1
KEYS = ("within_tolerance", "worst", "n_corners", "n_incomplete", "flops_range")


def hyperparameters(
    sweep_dir: Path, arm: str | None, runs: Iterable[tuple[str | None, str | None]]
) -> Mapping[str, Any] | str:
    """Return the summary of an arm's check, or "unmeasured" if there is no check of these runs.

    `runs` are names and run keys of the sweep's runs. A check applies to them if some of its corners have the
    same names, and every such corner the same run key; otherwise it was made for another grid or other
    settings.
    """
    check = next((check for check in _checks(sweep_dir) if check["arm"] == arm), None)
    if check is None:
        return UNMEASURED
    keys: dict[str | None, set[str | None]] = {}
    for name, key in runs:
        keys.setdefault(name, set()).add(key)
    shared = {name: key for name, key in check["grid_runs"].items() if name in keys}
    if not shared or any(key not in keys[name] for name, key in shared.items()):
        return UNMEASURED
    return {key: check.get(key) for key in KEYS}


def _checks(sweep_dir: Path) -> list[dict[str, Any]]:
    document = read_json(sweep_dir / HPARAMS) or {}
    return document["checks"] if document.get("schema_version") == SCHEMA_VERSION else []


def known_of(sweep_dir: Path, status: SweepStatus) -> Mapping[str, Any] | str:
    """Return the summary of the worst arm of a sweep, or "unmeasured" if an arm's check is missing."""
    runs = [(run.name, run.run_key) for run in status.runs]
    summaries = [hyperparameters(sweep_dir, check["arm"], runs) for check in _checks(sweep_dir)]
    measured = [summary for summary in summaries if not isinstance(summary, str)]
    if not summaries or len(measured) < len(summaries):
        return UNMEASURED
    return max(measured, key=lambda summary: _worst_gap(summary["worst"]))


def _worst_gap(worst: Mapping[str, Any] | None) -> float:
    return float("inf") if worst is None else float(worst["loss_left"])
