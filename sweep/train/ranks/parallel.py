"""The ranks of a run that are several: whole weights on each, or weights spread over all.

Imported only where there is more than one rank: torch takes a second to import what this needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from sweep.train.models.gpt import GPT
from sweep.train.ranks.base import Command, Ranks

TIMEOUT = timedelta(
    days=1
)  # of one collective: a dead rank closes its connections, a hung one stalls the run
LOSS_METHODS = ("losses", "total_loss")  # of the model: what is called in place of its forward
BUCKET_NUMEL = 1 << 23  # of gradients summed in one call: enough to be bound by bandwidth


class DataParallel(Ranks):
    """Each rank holds all weights; gradients are summed once a step, when all micro-batches are done.

    So ranks may differ in micro-batches, and one that runs out of memory halves its own. The sum of the
    gradients of shares is the gradient of the batch: each is of a sum over its sequences, divided by the
    tokens of the whole batch (as in Li et al. 2020, PyTorch Distributed, section 3.2, whose mean over ranks
    this is where shares are equal).
    """

    name = "ddp"

    def __init__(self, rank: int, n_ranks: int) -> None:
        """The default process group must be there."""
        self.rank, self.n_ranks = rank, n_ranks
        backend = dist.get_backend()
        # Commands go over the CPU: reading one from a GPU would wait for its queue.
        self._control = None if backend == "gloo" else dist.new_group(backend="gloo")

    def announce(self, command: Command, step: int = 0) -> None:
        """Rank 0 tells the others what comes next; from any other rank it is nothing."""
        if self.rank == 0:
            dist.broadcast(torch.tensor([command, step]), src=0, group=self._control)

    def receive(self) -> tuple[Command, int]:
        """What rank 0 announces next, and the step it is about."""
        message = torch.zeros(2, dtype=torch.int64)
        dist.broadcast(message, src=0, group=self._control)
        command, step = message.tolist()
        return Command(command), step

    def reduce(self, model: nn.Module, loss: Tensor) -> None:
        """Sum the gradients on `model`'s parameters, and `loss`, over the ranks, in place."""
        for bucket in _buckets([p.grad for p in model.parameters() if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            sizes = [gradient.numel() for gradient in bucket]
            for gradient, summed in zip(bucket, torch.split(flat, sizes), strict=True):
                gradient.copy_(summed.view_as(gradient))
        dist.all_reduce(loss)


class Sharded(DataParallel):
    """Each rank holds its part of weights, gradients and optimizer state: torch's FSDP2, block by block.

    Source: Zhao et al. 2023 (PyTorch FSDP); torch.distributed.fsdp.fully_shard.
    """

    name = "fsdp"
    sharded = True

    def place(self, model: GPT, device: torch.device) -> GPT:
        """Shard the model; each block goes to the device by itself, so the whole need never fit there."""
        mesh = init_device_mesh(device.type, (self.n_ranks,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for method in LOSS_METHODS:
            register_fsdp_forward_method(model, method)
        for module in model.modules():
            if isinstance(module, FSDPModule):  # a sum, as DataParallel has it, where FSDP's own is a mean
                module.set_force_sum_reduction_for_comms(True)
                module.set_gradient_divide_factor(1.0)
        return model

    def reduce(self, model: nn.Module, loss: Tensor) -> None:
        """The backward pass summed the gradients; sum the loss."""
        dist.all_reduce(loss)

    def whole(self, tensor: Tensor) -> Tensor:
        """All of a tensor of the state, from every rank's part of it."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """This rank's part of a whole tensor, spread as `like` is."""
        if not isinstance(like, DTensor) or whole.shape != like.shape:
            return whole
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def join(rank: int, spec: dict[str, Any], device: torch.device) -> DataParallel:
    """Meet the other ranks over a file that only this user sees; all traffic stays on this machine."""
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
    """Forget the process group, so that the next run may have another."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def abort() -> None:
    """End collectives that wait for a rank that is dead, where the back end does not see it by itself."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        world: Any = dist.group.WORLD
        world._get_backend(torch.device("cuda")).abort()


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in order, in groups of about BUCKET_NUMEL numbers."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(tensor.numel() for tensor in bucket) >= BUCKET_NUMEL:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
