"""Interface of the processes (ranks) that train one run, and its single-process implementation.

Every rank holds the same run. Rank 0 announces each command, so all ranks execute the same at the same step;
only rank 0 decides to stop, saves, and talks to the worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

from sweep.train.models.gpt import GPT


class Command(IntEnum):
    """A command of rank 0 to the other ranks."""

    STEP = 0
    STATE = 1
    RESTORE = 2
    EVALUATE = 3
    END = 4


class Ranks:
    """A single process: collective operations are no-ops."""

    name = "none"
    rank, n_ranks = 0, 1
    sharded = False  # parameters are DTensors, and every forward and backward pass is collective

    def share(self, n_sequences: int) -> range:
        """Return the range of a batch's sequences that belong to this rank."""
        first, last = (n_sequences * rank // self.n_ranks for rank in (self.rank, self.rank + 1))
        return range(first, last)

    def place(self, model: GPT, device: torch.device) -> GPT:
        """Move or shard the model's weights to the device."""
        return model.to(device)

    def reduce(self, gradients: Sequence[Tensor], loss: Tensor) -> None:
        """Sum the gradients and `loss` over the ranks, in place."""

    def announce(self, command: Command, step: int = 0) -> None:
        """Send the next command from rank 0 to the others; a no-op on other ranks."""

    def whole(self, tensor: Tensor) -> Tensor:
        """Return the full tensor, gathered from all ranks."""
        return tensor

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """Return this rank's part of a full tensor, sharded like `like`."""
        return whole


ALONE = Ranks()
