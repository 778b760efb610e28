"""The processes that train one run together: whose sequences are whose, and what all of them must do at once.

Every rank holds the same run. Rank 0 announces each command, so all of them do the same at the same step,
and only it decides to stop, saves and speaks to the worker.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor, nn

from sweep.train.models.gpt import GPT


class Command(IntEnum):
    """What rank 0 asks of the others."""

    STEP = 0
    STATE = 1
    RESTORE = 2
    EVALUATE = 3
    END = 4


class Ranks:
    """One process alone, and what is common to all: with nobody to agree with, agreeing is nothing."""

    name = "none"
    rank, n_ranks = 0, 1
    sharded = False  # parameters are DTensors, and every forward and backward pass waits for all ranks

    def share(self, n_sequences: int) -> range:
        """Which sequences of a batch are this rank's."""
        first, last = (n_sequences * rank // self.n_ranks for rank in (self.rank, self.rank + 1))
        return range(first, last)

    def place(self, model: GPT, device: torch.device) -> GPT:
        """Put the model's weights where they are trained."""
        return model.to(device)

    def reduce(self, model: nn.Module, loss: Tensor) -> None:
        """Sum the gradients on `model`'s parameters, and `loss`, over the ranks, in place."""

    def announce(self, command: Command, step: int = 0) -> None:
        """Rank 0 tells the others what comes next; from any other rank it is nothing."""

    def whole(self, tensor: Tensor) -> Tensor:
        """All of a tensor of the state, from every rank's part of it."""
        return tensor

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """This rank's part of a whole tensor, spread as `like` is."""
        return whole


ALONE = Ranks()
