"""The devices that torch can use, found in a subprocess, and the GPUs that the driver lists."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

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
if torch.version.hip is not None:
    reason = "this torch is built for AMD GPUs, which are not supported"
elif torch.version.cuda is None and torch.backends.mps.is_available():
    reason = "Apple GPUs are not supported"
elif torch.version.cuda is None:
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
                                    "uuid": str(properties.uuid), "dtypes": try_dtypes(f"cuda:{index}")}
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda,
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


def installed_gpus() -> list[str]:
    """Return the names of the NVIDIA GPUs of this machine, usable by torch or not."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]
