"""How many devices one run may be spread over, and when its weights must be spread too."""

from __future__ import annotations

from typing import Literal

from sweep.config import RunConfig
from sweep.errors import InputError
from sweep.plan.estimate import memory

USABLE_FRAC = 0.9  # of a device's memory: its context and the allocator's slack need the rest

Parallel = Literal["auto", "ddp", "fsdp"]


def check_devices(run: RunConfig, n_devices: int, parallel: Parallel) -> None:
    """Refuse more devices than a batch has sequences, sharded weights under unequal shares or under Muon.

    Raises InputError.
    """
    if n_devices > run.batch_size:
        raise InputError(
            f"trainer.n_devices={n_devices} is more than the {run.batch_size} sequences in a batch of "
            f"{run.name}: choose at most {run.batch_size}, or raise batch_tokens"
        )
    if parallel == "fsdp" and run.optimizer.name == "muon":
        raise InputError(
            f"trainer.parallel=fsdp spreads each matrix over devices, and optimizer.name=muon of {run.name} "
            f"needs it whole: choose parallel=ddp, or optimizer=adamw"
        )
    if parallel == "fsdp" and run.batch_size % n_devices:
        raise InputError(
            f"trainer.parallel=fsdp needs equal shares, and the {run.batch_size} sequences in a batch of "
            f"{run.name} do not divide by trainer.n_devices={n_devices}: choose a divisor, or parallel=ddp"
        )


def is_sharded(run: RunConfig, n_devices: int, parallel: Parallel, device_bytes: int, device: str) -> bool:
    """Whether weights are spread over the devices too: when asked for, or when one cannot hold the run.

    A batch can be cut down to one sequence, the weights cannot. Under `auto`, shares that are not equal, and
    Muon, stay with whole weights.
    """
    if parallel != "auto":
        return parallel == "fsdp"
    needed = memory(run, 1, device=device).rise
    spreadable = run.batch_size % n_devices == 0 and run.optimizer.name != "muon"
    return needed > USABLE_FRAC * device_bytes and spreadable
