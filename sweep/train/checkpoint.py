"""Checkpoints: safetensors plus JSON with a checksum; two are kept, a damaged one is passed over."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, uint8

from sweep.store.files import create, sync_directory, write_atomic

KEPT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a training run needs to go on: named tensors, on the CPU, and plain values."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that a reader sees it whole or not at all, then drop all but the newest two.

    The tensors are written from where they lie. The JSON names the SHA-256 of their file and appears last:
    without it a checkpoint does not exist. Others are removed only after the new one was read back and found
    to hold what memory holds, those of later steps too: they are damaged, or of another code version, else
    this run would have gone on from there. Raises OSError when the disk is full or the directory was taken
    away.
    """
    path = _header_file(directory, checkpoint.step)
    temporary = directory / f".{path.stem}.{secrets.token_hex(4)}.tmp"
    try:
        create(temporary, b"", durable=False)  # so that no symbolic link is followed
        _write_tensors(temporary, checkpoint.tensors)
        sha256 = _sha256_in_memory(temporary, checkpoint.tensors)
        _appear(temporary, path.with_suffix(".safetensors"))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    header = {"step": checkpoint.step, "sha256": sha256, "values": dict(checkpoint.values)}
    write_atomic(path, _sealed(header))
    if _read_header(path) is None:
        raise OSError(errno.EIO, f"checkpoint {path.stem} does not read back as written", str(directory))
    _keep_only(directory, [old for old in _headers(directory) if old <= path][:KEPT])


def load_latest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None. Damaged ones are passed over."""
    return next(filter(None, map(_read, _headers(directory))), None)


def load_step(directory: Path, step: int) -> Checkpoint:
    """The checkpoint of one step. Raises OSError when it is not there or damaged."""
    checkpoint = _read(_header_file(directory, step))
    if checkpoint is None:
        raise OSError(f"checkpoint of step {step} in {directory} is gone or damaged")
    return checkpoint


def _header_file(directory: Path, step: int) -> Path:
    return directory / f"step-{step:012d}.json"


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
    header = _read_header(path)
    if header is None:
        return None
    try:
        tensors = load_file(path.with_suffix(".safetensors"))
        return Checkpoint(step=header["step"], tensors=tensors, values=header["values"])
    except (OSError, SafetensorError, KeyError):
        return None


def _read_header(path: Path) -> dict[str, Any] | None:
    """The header, where it and the tensors' file are as they were written."""
    try:
        body, _, seal = path.read_bytes().partition(b"\n")
        if seal != hashlib.sha256(body).hexdigest().encode() + b"\n":
            return None
        header: dict[str, Any] = json.loads(body)
        with path.with_suffix(".safetensors").open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
    return header if sha256 == header["sha256"] else None


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises OSError with the system's own number, which the library only has in its message."""
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None


def _sha256_in_memory(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Of the file as it should be: the layout it declares, filled with the tensors in memory."""
    with path.open("rb") as file:
        length = file.read(8)
        layout = file.read(int.from_bytes(length, "little"))
    digest = hashlib.sha256(length + layout)
    offsets = {name: spec["data_offsets"] for name, spec in json.loads(layout).items()}
    for name in sorted(tensors, key=lambda name: tuple(offsets[name])):
        digest.update(tensors[name].reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()


def _appear(temporary: Path, path: Path) -> None:
    """Make what was written durable, then visible: fsync, rename, fsync of the directory."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)
