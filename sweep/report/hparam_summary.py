"""What a sweep says of its learning rate and batch: measured by a check of the same runs, or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweep.report.numbers import four
from sweep.store.files import read_json
from sweep.store.status import SweepStatus

HPARAMS = "hparams.json"  # in the directory of the sweep
UNMEASURED = "unmeasured"
SCHEMA_VERSION = 1


def hyperparameters(
    sweep_dir: Path, arm: str | None, named: Iterable[tuple[str | None, str | None]]
) -> Mapping[str, Any] | str:
    """The worst corner of the sweep's check, or "unmeasured".

    `named` are names and keys of the sweep's runs. A check says nothing about them when its corners carry
    other names, or these names and other keys: then it was made of another grid, or of other settings.
    """
    found = next((check for check in _checks(sweep_dir) if check["arm"] == arm), None)
    if found is None:
        return UNMEASURED
    keys: dict[str | None, set[str | None]] = {}
    for name, key in named:
        keys.setdefault(name, set()).add(key)
    shared = {name: key for name, key in found["grid_runs"].items() if name in keys}
    if not shared or any(key not in keys[name] for name, key in shared.items()):
        return UNMEASURED
    told = ("within_tolerance", "worst", "n_corners", "n_incomplete", "flops_range")
    return {name: found.get(name) for name in told}


def _checks(sweep_dir: Path) -> list[dict[str, Any]]:
    document = read_json(sweep_dir / HPARAMS) or {}
    return document["checks"] if document.get("schema_version") == SCHEMA_VERSION else []


def known_of(sweep_dir: Path, status: SweepStatus) -> Mapping[str, Any] | str:
    """The same for all arms of a sweep: the worst of them, or "unmeasured" when that is so of one."""
    named = [(run.name, run.run_key) for run in status.runs]
    found = [hyperparameters(sweep_dir, check["arm"], named) for check in _checks(sweep_dir)]
    measured = [known for known in found if not isinstance(known, str)]
    if not found or len(measured) < len(found):
        return UNMEASURED
    return max(measured, key=lambda known: known["worst"]["loss_left"] if known["worst"] else float("inf"))


def hparam_line(found: Mapping[str, Any] | str) -> str:
    """One line for people."""
    if isinstance(found, str):
        return f"hyperparameters {found}: sweep check-hparams says what they leave on the table"
    worst = found["worst"]
    if worst is None:
        return "hyperparameters: checked, but no corner is complete: sweep check-hparams goes on"
    low, high = found["flops_range"]
    missing = f"; {found['n_incomplete']} measurements are incomplete" if found["n_incomplete"] else ""
    return (
        f"hyperparameters: {loss_left(worst)} nats left on the table at the worst of {found['n_corners']} "
        f"corners ({worst['corner']}, {worst['axis']}), {four(low)} to {four(high)} FLOPs{missing}"
    )


def loss_left(found: Mapping[str, Any]) -> str:
    """A loss left on the table with its standard error, a bound said to be one."""
    bound = "" if found["status"] == "ok" else "at least "
    error = "" if found["stderr"] is None else f" ± {found['stderr']:.4f}"
    return f"{bound}{found['loss_left']:.4f}{error}"
