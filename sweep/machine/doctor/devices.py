"""Checks of torch and its devices; torch is imported in a subprocess only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from sweep.machine.doctor.diagnosis import Check, Needs, State

PROBE_TIMEOUT_S = 120.0  # importing torch from a network disk can be slow

TORCH_PROBE = """
import json, torch
def try_dtypes(device):
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        try:
            ones = torch.ones(8, 8, device=device, dtype=dtype)
            found[name] = float((ones @ ones).sum()) == 512.0
        except Exception:
            found[name] = False
    return found
devices = {"cpu": {"name": "CPU", "memory_bytes": None, "dtypes": try_dtypes("cpu")}}
reason = None
if torch.version.cuda is None and torch.version.hip is None:
    reason = "this torch is built for the CPU"
elif not torch.cuda.is_available():
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
else:
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = {"name": properties.name, "memory_bytes": properties.total_memory,
                                    "dtypes": try_dtypes(f"cuda:{index}")}
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda or torch.version.hip,
                  "no_gpu_because": reason, "devices": devices}))
"""
"""Prints, as JSON, the devices of torch and the precisions in which a small matrix product is correct."""


def probe_torch() -> dict[str, Any]:
    """Return the version and devices of torch, or {"error": message} if it cannot be imported."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", TORCH_PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    except subprocess.TimeoutExpired:
        return {"error": f"does not import within {PROBE_TIMEOUT_S:.0f} s"}
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"error": f"does not import: {last}"}


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
    return checks


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


def installed_gpus() -> list[str]:
    """Return the names of the NVIDIA GPUs of this machine, usable by torch or not."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]
