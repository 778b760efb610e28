"""One optimizer step: the gradient of a batch's mean loss, in micro-batches where needed, clip and update."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweep.config import RunConfig
from sweep.models.gpt import GPT
from sweep.optim.optimizers import build_optimizer, set_lr
from sweep.optim.schedules import lr_frac
from sweep.records import Placement
from sweep.train.device import is_out_of_memory
from sweep.train.ranks import ALONE, Ranks

Rows = Callable[[int, int, int], NDArray[np.int64]]
"""The sequences `start` to `stop` of the batch of a step, shape (stop - start, seq_len + 1)."""


class TrainingStep:
    """Carries out the steps of one run on one device; owns the optimizer and how a step is carried out.

    `choices` is what was found out on the way, the size of a micro-batch to begin with: a checkpoint keeps
    it, and who takes the run up chooses the same. `compile_s` is what compiling took of the steps so far.
    """

    def __init__(
        self, model: GPT, run: RunConfig, placement: Placement, rows: Rows, ranks: Ranks = ALONE
    ) -> None:
        self.model, self.run, self.rows, self.ranks = model, run, rows, ranks
        self.device = torch.device(placement.device)
        self.optimizer = build_optimizer(model, run.optimizer)
        self.share = ranks.share(run.batch_size)
        self.choices: dict[str, str | int | float] = {}
        self.micro_batch_size = min(placement.micro_batch_size or run.batch_size, len(self.share))
        self.compile_s = 0.0

    @property
    def micro_batch_size(self) -> int:
        """Sequences per forward and backward pass."""
        return int(self.choices["micro_batch_size"])

    @micro_batch_size.setter
    def micro_batch_size(self, n_sequences: int) -> None:
        self.choices["micro_batch_size"] = n_sequences

    def choose(self, choices: Mapping[str, str | int | float]) -> None:
        """Go on as a checkpoint says the run was carried out, or in smaller parts where placement says so."""
        micro = self.micro_batch_size
        self.choices |= choices
        self.micro_batch_size = min(self.micro_batch_size, micro)

    def __call__(self, step: int) -> Tensor:
        """Take step number `step`, from 0. Returns the batch's mean loss in nats per token, on the device.

        Where memory runs out the micro-batch is halved and the batch begun again: the same step, to rounding.
        When one sequence is too much, the allocator's own error goes on to the caller.
        """
        run = self.run
        loss = self._gradients(step)
        self.ranks.reduce(self.model, loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), run.optimizer.grad_clip)
        set_lr(self.optimizer, run.optimizer.lr_peak * lr_frac(step, run.schedule, run.n_steps))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _gradients(self, step: int) -> Tensor:
        while True:
            try:
                return self._accumulate(step)
            except (MemoryError, RuntimeError) as error:
                # Sharded ranks wait for each other within a pass, so none of them can begin it again alone.
                if not is_out_of_memory(error) or self.micro_batch_size == 1 or self.ranks.sharded:
                    raise
            self._shrink()

    def _shrink(self) -> None:
        """Halve the micro-batch and forget the gradients so far."""
        self.optimizer.zero_grad(set_to_none=True)
        self.micro_batch_size = (self.micro_batch_size + 1) // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _accumulate(self, step: int) -> Tensor:
        """Our part of the batch's mean loss, in nats per token; its gradient is left on the parameters."""
        share, micro = self.share, self.micro_batch_size
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for start in share[::micro]:
            tokens = self._to_device(self.rows(step, start, min(start + micro, share.stop)))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.precision == "bf16"):
                losses = self.model.losses(tokens[:, :-1], tokens[:, 1:])
            loss = losses.sum() / self.run.batch_tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _to_device(self, rows: NDArray[np.int64]) -> Tensor:
        tokens = torch.from_numpy(rows)
        if self.device.type == "cuda":
            return tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens
