"""Checkpoints of a run: safetensors plus JSON with checksums, when to write them, and how to restore them.

The two newest are kept; damaged ones are skipped when loading.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from sweep.plan.estimate import CHECKPOINTS_KEPT
from sweep.store.files import create, sync_directory, write_atomic
from sweep.train.ranks.base import Ranks

MAX_SAVING_FRAC = 0.02  # of the time between two checkpoints spent on writing one
ASSUMED_BYTES_PER_SECOND = 2e8  # before the first measurement: a slow disk, data hashed twice
MODEL, OPTIMIZER = "model.", "optimizer."  # prefixes of tensor names


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """State of a training run: named tensors on the CPU and JSON values."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically, then delete all but the newest two.

    Tensors are written without a copy. The JSON header holds the SHA-256 of the tensor file and appears last:
    without it a checkpoint does not exist. Older ones are deleted only after the new one was read back and
    equals the tensors in memory. Those of later steps are deleted too: they are damaged or of another code
    version, otherwise this run would have resumed from them. Raises OSError when the disk is full or the
    directory is gone.
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
    _keep_only(directory, [old for old in _headers(directory) if old <= path][:CHECKPOINTS_KEPT])


def load_latest(directory: Path) -> Checkpoint | None:
    """Return the newest intact checkpoint, or None. Damaged ones are skipped."""
    return next(filter(None, map(_read, _headers(directory))), None)


def load_step(directory: Path, step: int) -> Checkpoint:
    """Return the checkpoint of `step`. Raises OSError when it is missing or damaged."""
    checkpoint = _read(_header_file(directory, step))
    if checkpoint is None:
        raise OSError(f"checkpoint of step {step} in {directory} is missing or damaged")
    return checkpoint


def _header_file(directory: Path, step: int) -> Path:
    return directory / f"step-{step:012d}.json"


def _headers(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*.json"), reverse=True)


def _keep_only(directory: Path, headers: list[Path]) -> None:
    """Delete all other checkpoints, headers before tensors, and leftovers of interrupted writes."""
    kept = {name for path in headers for name in (path.name, path.with_suffix(".safetensors").name)}
    for path in sorted(directory.iterdir(), key=lambda path: path.suffix != ".json"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _sealed(header: dict[str, Any]) -> bytes:
    """Return JSON followed by a line with its SHA-256, so that a damaged header is detected too."""
    body = json.dumps(header, allow_nan=False).encode()
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def _read(path: Path) -> Checkpoint | None:
    """Return the checkpoint, or None when it is damaged or unreadable."""
    header = _read_header(path)
    if header is None:
        return None
    try:
        tensors = load_file(path.with_suffix(".safetensors"))
        return Checkpoint(step=header["step"], tensors=tensors, values=header["values"])
    except (OSError, SafetensorError, KeyError):
        return None


def _read_header(path: Path) -> dict[str, Any] | None:
    """Return the header, or None unless it and the tensor file match their checksums."""
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
    """Write a safetensors file. Raises OSError with the errno that the library only names in its message."""
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None


def _sha256_in_memory(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 the file should have: its declared layout filled with the tensors in memory."""
    with path.open("rb") as file:
        length = file.read(8)
        layout = file.read(int.from_bytes(length, "little"))
    digest = hashlib.sha256(length + layout)
    offsets = {name: spec["data_offsets"] for name, spec in json.loads(layout).items()}
    for name in sorted(tensors, key=lambda name: tuple(offsets[name])):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _appear(temporary: Path, path: Path) -> None:
    """Make a written file durable, then visible: fsync, rename, fsync of the directory."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


class Saver:
    """Schedules the checkpoints of one run: at least `interval_s` apart, further if writing takes long."""

    def __init__(self, directory: Path, interval_s: float, n_bytes: int) -> None:
        """`n_bytes` is the approximate size of one checkpoint."""
        self._directory, self._interval_s = directory, interval_s
        self._saved_at = time.monotonic()
        self._wait_s = self._wait(n_bytes / ASSUMED_BYTES_PER_SECOND)

    def due(self) -> bool:
        """Return True when it is time to save."""
        return time.monotonic() - self._saved_at > self._wait_s

    def save(self, state: Callable[[], Checkpoint]) -> None:
        """Collect the state and write it. Raises OSError as `save_checkpoint` does."""
        begun = time.monotonic()
        save_checkpoint(self._directory, state())
        self._saved_at = time.monotonic()
        self._wait_s = self._wait(self._saved_at - begun)

    def _wait(self, saving_s: float) -> float:
        return max(self._interval_s, saving_s / MAX_SAVING_FRAC)


def named_tensors(model: nn.Module, optimizer: Optimizer, ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight as `model.NAME` and every optimizer tensor as `optimizer.SLOT.NAME`, unsharded.

    A collective operation: all ranks must iterate in step. One tensor is gathered at a time.
    """
    for name, parameter in model.named_parameters():
        yield MODEL + name, ranks.whole(parameter.detach())
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):  # SGD stores None without momentum
                yield f"{OPTIMIZER}{slot}.{name}", ranks.whole(value.detach())


def restore_tensors(
    tensors: Mapping[str, Tensor], model: nn.Module, optimizer: Optimizer, ranks: Ranks
) -> None:
    """Load what `named_tensors` gave into `model` and `optimizer`; keeps no reference to `tensors`."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(ranks.part(tensors[MODEL + name], parameter))
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(OPTIMIZER):
            slot, _, name = key.removeprefix(OPTIMIZER).partition(".")
            slots.setdefault(name, {})[slot] = ranks.part(tensor, parameters[name]).clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _by_index(slots, parameters, optimizer)})


def _by_index(
    slots: Mapping[str, dict[str, Tensor]], parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> dict[int, dict[str, Tensor]]:
    """Number the slots as a state dict does: parameters in the order of their groups."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    ordered = (names[id(p)] for group in optimizer.param_groups for p in group["params"])
    return {index: slots[name] for index, name in enumerate(ordered) if name in slots}
