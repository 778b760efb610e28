"""Data-parallel ranks: full weights on each (DDP), or weights sharded over all (FSDP).

Imported only with more than one rank: torch.distributed takes a second to import.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from sweep.train.models.gpt import GPT
from sweep.train.ranks.base import Command, Ranks

TIMEOUT = timedelta(days=1)  # of one collective; dead ranks are detected by their closed connections
LOSS_METHODS = ("losses", "total_loss")  # methods of the model that are called instead of its forward


class DataParallel(Ranks):
    """Each rank holds all weights; gradients are summed once per step, after all micro-batches.

    So ranks may differ in micro-batches, and a rank that runs out of memory halves its own. Each rank's loss
    is a sum over its sequences divided by the tokens of the whole batch, so that summed gradients are the
    gradient of the batch; with equal shares this is the mean over ranks of Li et al. 2020 (PyTorch
    Distributed), section 3.2.
    """

    name = "ddp"

    def __init__(self, rank: int, n_ranks: int) -> None:
        """Requires an initialised default process group."""
        self.rank, self.n_ranks = rank, n_ranks
        backend = dist.get_backend()
        # commands go over the CPU, since reading one from a GPU would synchronise
        self._control = None if backend == "gloo" else dist.new_group(backend="gloo")

    def announce(self, command: Command, step: int = 0) -> None:
        """Send the next command from rank 0 to the others; a no-op on other ranks."""
        if self.rank == 0:
            dist.broadcast(torch.tensor([command, step]), src=0, group=self._control)

    def receive(self) -> tuple[Command, int]:
        """Wait for the next command of rank 0; return it and its step."""
        message = torch.zeros(2, dtype=torch.int64)
        dist.broadcast(message, src=0, group=self._control)
        command, step = message.tolist()
        return Command(command), step

    def reduce(self, gradients: Sequence[Tensor], loss: Tensor) -> None:
        """Sum the gradients and `loss` over the ranks, in place."""
        for tensor in (*gradients, loss):
            dist.all_reduce(tensor)


class Sharded(DataParallel):
    """Each rank holds a part of weights, gradients and optimizer state: torch's FSDP2, block by block.

    Source: Zhao et al. 2023 (PyTorch FSDP); torch.distributed.fsdp.fully_shard.
    """

    name = "fsdp"
    sharded = True

    def place(self, model: GPT, device: torch.device) -> GPT:
        """Shard the model block by block, so that the full model never has to fit on one device."""
        mesh = init_device_mesh(device.type, (self.n_ranks,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for method in LOSS_METHODS:
            register_fsdp_forward_method(model, method)
        for module in model.modules():
            if isinstance(module, FSDPModule):  # sum gradients as DataParallel does, not FSDP's mean
                module.set_force_sum_reduction_for_comms(True)
                module.set_gradient_divide_factor(1.0)
        return model

    def reduce(self, gradients: Sequence[Tensor], loss: Tensor) -> None:
        """Sum the loss over the ranks; the backward pass has summed the gradients."""
        dist.all_reduce(loss)

    def whole(self, tensor: Tensor) -> Tensor:
        """Return the full tensor, gathered from all ranks."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """Return this rank's part of a full tensor, sharded like `like`."""
        if not isinstance(like, DTensor) or whole.shape != like.shape:
            return whole
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def join(rank: int, spec: dict[str, Any], device: torch.device) -> DataParallel:
    """Join the process group through a private file store; all traffic stays on this machine."""
    loopback = "lo" if sys.platform == "linux" else "lo0"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.FileStore(spec["store"], spec["n_ranks"]),  # type: ignore[attr-defined]
        rank=rank,
        world_size=spec["n_ranks"],
        timeout=TIMEOUT,
    )
    return (Sharded if spec["sharded"] else DataParallel)(rank, spec["n_ranks"])


def leave() -> None:
    """Destroy the process group, so that the next run can create one."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def abort() -> None:
    """Abort collectives that wait for a dead rank, for backends that do not detect it (NCCL)."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        world: Any = dist.group.WORLD
        world._get_backend(torch.device("cuda")).abort()
