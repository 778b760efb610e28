"""Checkpoints: safetensors plus JSON with a checksum; two are kept, a damaged one is passed over."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sweep.store.files import replace

KEPT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a training run needs to go on: named tensors, on the CPU, and plain values."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that a reader sees it whole or not at all, then drop all but the newest two.

    The JSON names the tensors' SHA-256 and appears last: without it a checkpoint does not exist. Others are
    removed only after the new one was read back and found good, those of later steps too: they are damaged,
    or of another code version, else this run would have gone on from there. Raises OSError when the disk is
    full or the directory was taken away.
    """
    stem = f"step-{checkpoint.step:012d}"
    blob = save(dict(checkpoint.tensors))
    header = {
        "step": checkpoint.step,
        "sha256": hashlib.sha256(blob).hexdigest(),
        "values": dict(checkpoint.values),
    }
    path = directory / f"{stem}.json"
    replace(path.with_suffix(".safetensors"), blob)
    replace(path, _sealed(header))
    if _read(path) is None:
        raise OSError(errno.EIO, f"checkpoint {stem} does not read back as written", str(directory))
    _keep_only(directory, [old for old in _headers(directory) if old <= path][:KEPT])


def load_latest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None. Damaged ones are passed over."""
    for path in _headers(directory):
        checkpoint = _read(path)
        if checkpoint is not None:
            return checkpoint
    return None


def _headers(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*.json"), reverse=True)


def _keep_only(directory: Path, headers: list[Path]) -> None:
    """Remove all but these checkpoints: headers first, then tensors, and what a death on the way left."""
    kept = {name for path in headers for name in (path.name, path.with_suffix(".safetensors").name)}
    for path in sorted(directory.iterdir(), key=lambda path: path.suffix != ".json"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _sealed(header: dict[str, Any]) -> bytes:
    """JSON followed by a line with its own SHA-256, so that damage to the header is seen too."""
    body = json.dumps(header, allow_nan=False).encode()
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def _read(path: Path) -> Checkpoint | None:
    """The checkpoint, or None when it is damaged or the disk does not give it back."""
    try:
        sealed = path.read_bytes()
        body, _, seal = sealed.partition(b"\n")
        if seal != hashlib.sha256(body).hexdigest().encode() + b"\n":
            return None
        header = json.loads(body)
        blob = path.with_suffix(".safetensors").read_bytes()
        if hashlib.sha256(blob).hexdigest() != header["sha256"]:
            return None
        return Checkpoint(step=header["step"], tensors=load(blob), values=header["values"])
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
