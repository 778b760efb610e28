"""Checks of torch, its devices and the compiler it needs on a GPU."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.machine.doctor.diagnosis import Check, Needs, State
from sweep.machine.torch_probe import installed_gpus

COMPILERS = ("gcc", "clang", "cc")


def check_torch(torch: Mapping[str, Any] | None, needs: Needs) -> list[Check]:
    """Check the devices and precisions of torch, and report an installed GPU that torch cannot use."""
    if torch is None:
        return []  # reported by check_packages
    if "error" in torch:
        remedy = "reinstall it: pip install --force-reinstall torch"
        return [Check(name="torch", state="missing", found=str(torch["error"]), remedy=remedy)]
    wanted = wanted_devices(needs.device, torch)
    checks = [
        _check_device(name, device, needs if name in wanted else None)
        for name, device in torch["devices"].items()
    ]
    if len(torch["devices"]) == 1 and (needs.device == "cuda" or installed_gpus()):
        state: State = "missing" if needs.device == "cuda" else "absent"
        seen = ", ".join(installed_gpus()) or "no GPU found"
        found = f"{seen}; torch {torch['version']} cannot use a GPU: {torch['no_gpu_because']}"
        remedy = "install a build of torch for this machine's driver: https://pytorch.org/get-started"
        checks.append(Check(name="gpu", state=state, found=found, remedy=remedy))
    if wanted - {"cpu"}:
        checks += [check_compiler(), *_check_management_tool()]
    return checks


def check_compiler() -> Check:
    """Check for the C compiler and the Python headers with which Triton builds its launcher.

    Without them torch.compile fails at the first step, and training continues in eager code.
    """
    wanted = (os.environ["CC"],) if os.environ.get("CC") else COMPILERS
    compiler = next(filter(None, map(shutil.which, wanted)), None)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    problems = [] if compiler else [f"no C compiler ({', '.join(wanted)})"]
    problems += [] if header.exists() else [f"{header} not found"]
    if not problems:
        return Check(name="compiler", state="ok", found=f"{compiler}, {header}")
    return Check(
        name="compiler",
        state="absent",
        found=f"{' and '.join(problems)}: torch.compile cannot run, GPU runs train in slower eager code",
        remedy="install a C compiler and the headers of Python: apt-get install gcc python3-dev",
    )


def _check_management_tool() -> list[Check]:
    """Report a missing nvidia-smi: training does not use it, but operators do."""
    if shutil.which("nvidia-smi"):
        return []
    found = "not found: GPUs are detected by torch alone"
    remedy = "optional; in a container, set NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    return [Check(name="nvidia-smi", state="absent", found=found, remedy=remedy)]


def wanted_devices(device: str, torch: Mapping[str, Any] | None) -> set[str]:
    """Return the names of the devices that workers would use."""
    gpus = {name for name in (torch or {}).get("devices", {}) if name != "cpu"}
    return {"cpu"} if device == "cpu" or (device == "auto" and not gpus) else gpus


def _check_device(name: str, device: Mapping[str, Any], needs: Needs | None) -> Check:
    """Check a device against the requirements of an experiment that would run on it."""
    works = [dtype for dtype, right in device["dtypes"].items() if right]
    memory = "" if device["memory_bytes"] is None else f", {device['memory_bytes'] / 2**30:.0f} GiB"
    found = f"{device['name']}{memory}, supports {' and '.join(works) or 'no precision'}"
    if needs is not None and needs.precision not in works:
        remedy = f"{needs.precision} is required: set precision to a supported one"
    elif needs is not None and needs.memory_bytes > (device["memory_bytes"] or needs.memory_bytes):
        remedy = f"the largest run needs {needs.memory_bytes / 2**30:.1f} GiB: set trainer.micro_batch_size"
    else:
        return Check(name=name, state="ok", found=found)
    return Check(name=name, state="missing", found=found, remedy=remedy)
