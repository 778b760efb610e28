"""Checks of this machine and installation against what an experiment requires."""

from __future__ import annotations

import platform

from sweep.machine.doctor.devices import check_torch, wanted_devices
from sweep.machine.doctor.diagnosis import Check, Diagnosis, Needs
from sweep.machine.doctor.machine import check_disk, check_links, check_memory
from sweep.machine.doctor.packages import check_extras, check_packages, version_of
from sweep.machine.torch_probe import probe_torch

__all__ = ["Check", "Diagnosis", "Needs", "examine"]


def examine(needs: Needs, n_cores: int) -> Diagnosis:
    """Check everything an experiment requires, and what could be installed in addition.

    Imports no heavy packages, and leaves no files behind.
    """
    torch = probe_torch() if version_of("torch") is not None else None
    return Diagnosis(
        checks=(
            Check(name="python", state="ok", found=f"{platform.python_version()}, {platform.platform()}"),
            Check(name="cores", state="ok", found=f"{n_cores} for workers"),
            check_memory(needs.memory_bytes if "cpu" in wanted_devices(needs.device, torch) else 0),
            *(check_disk(key, getattr(needs, key)) for key in ("results_dir", "data_dir")),
            check_links(needs.results_dir),
            *check_packages(needs.packages),
            *check_torch(torch, needs),
            *check_extras(),
            *check_launcher(needs),
            check_plan(needs.refusal),
            check_speed(needs.speed, needs.speed_remedy),
        )
    )


def check_plan(refusal: str | None) -> Check:
    """Check that the experiment can be planned: its config, corpus and tokenizer."""
    if refusal is None:
        return Check(name="plan", state="ok", found="the experiment can be planned")
    return Check(name="plan", state="missing", found=refusal, remedy="change the experiment accordingly")


def check_speed(speed: str | None, remedy: str) -> Check:
    """Report the measured speed of a worker, by which plans estimate time; `remedy` says how to get one."""
    if speed is not None:
        return Check(name="speed", state="ok", found=speed)
    return Check(
        name="speed",
        state="absent",
        found="not measured: plans guess the time of runs",
        remedy=f"optional; {remedy}",
    )


def check_launcher(needs: Needs) -> list[Check]:
    """Check that the launcher can be used; returns no check for local workers."""
    if needs.launch == "local":
        return []
    if needs.launch_refusal is None:
        return [Check(name="launch", state="ok", found=f"launch={needs.launch} is available")]
    return [
        Check(
            name="launch",
            state="missing",
            found=needs.launch_refusal,
            remedy="set up the launcher accordingly, or set launch=local",
        )
    ]
