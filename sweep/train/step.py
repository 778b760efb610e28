"""One optimizer step: gradient of a batch's mean loss, in micro-batches if needed, clipping and update."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweep.config import RunConfig
from sweep.errors import is_out_of_memory
from sweep.plan.estimate import equal_parts, fitting_micro_batch
from sweep.records import Placement
from sweep.train.cuda import CudaStep
from sweep.train.device import use_compilation_cache
from sweep.train.models.gpt import GPT
from sweep.train.optim.optimizers import build_optimizer, set_lr
from sweep.train.optim.schedules import lr_frac
from sweep.train.ranks.base import ALONE, Ranks
from sweep.train.update import build_update

Rows = Callable[[int, int, int], NDArray[np.int64]]
"""Sequences `start` to `stop` of the batch of `step`, shape (stop - start, seq_len + 1)."""


class TrainingStep:
    """Takes the optimizer steps of one run on one device; owns the optimizer.

    `choices` holds the micro-batch size, and on a GPU the use of compilation and graphs. Checkpoints store
    it, so that a resumed run executes the same way.
    """

    def __init__(
        self, model: GPT, run: RunConfig, placement: Placement, rows: Rows, ranks: Ranks = ALONE
    ) -> None:
        self.model, self.run, self.rows, self.ranks = model, run, rows, ranks
        self.device = torch.device(placement.device)
        self.optimizer = build_optimizer(model, run.optimizer)
        self.update = build_update(model, self.optimizer, run.optimizer.grad_clip)
        self.share = ranks.share(run.batch_size)
        self.choices: dict[str, str | int | float] = {}
        self.micro_batch_size = placement.micro_batch_size or self._fitting_sequences()
        self._cuda: CudaStep | None = None
        if self.device.type == "cuda" and not ranks.sharded:  # FSDP's hooks need the plain forward pass
            use_compilation_cache()
            self._cuda = CudaStep(
                model,
                run,
                self.device,
                self.choices,
                compile_blocks=placement.compile,
                deterministic=placement.deterministic,
            )
        self._ahead: tuple[int, int, Tensor] | None = None  # first rows of the next step

    def _fitting_sequences(self) -> int:
        """Return the sequences of this rank's share that a GPU's memory holds at once by estimate."""
        if self.device.type != "cuda" or self.ranks.sharded:
            return len(self.share)
        total_bytes = torch.cuda.get_device_properties(self.device).total_memory
        return fitting_micro_batch(self.run, len(self.share), total_bytes)

    @property
    def compile_s(self) -> float:
        """Seconds of compiling and capturing since this was last set to 0."""
        return 0.0 if self._cuda is None else self._cuda.compile_s

    @compile_s.setter
    def compile_s(self, seconds: float) -> None:
        if self._cuda is not None:
            self._cuda.compile_s = seconds

    @property
    def micro_batch_size(self) -> int:
        """Number of sequences per forward and backward pass."""
        return int(self.choices["micro_batch_size"])

    @micro_batch_size.setter
    def micro_batch_size(self, at_most: int) -> None:
        self.choices["micro_batch_size"] = equal_parts(len(self.share), at_most)

    def choose(self, choices: Mapping[str, str | int | float]) -> None:
        """Adopt the choices of a checkpoint, except for a micro-batch larger than the configured one."""
        micro = self.micro_batch_size
        self.choices.update(choices)
        self.micro_batch_size = min(self.micro_batch_size, micro)

    def release_memory(self) -> None:
        """Drop captured graphs and the allocator's cache of a GPU; the next pass captures again."""
        if self._cuda is not None:
            self._cuda.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def __call__(self, step: int) -> Tensor:
        """Take step `step`, from 0; return the batch's mean loss in nats per token, on the device.

        On out of memory the micro-batch is halved and the batch restarted: the same step up to rounding. If a
        single sequence does not fit, the allocator's error is raised.
        """
        run = self.run
        loss = self._gradients(step)
        self.ranks.reduce(self.update.gradients(), loss)
        set_lr(self.optimizer, run.optimizer.lr_peak * lr_frac(step, run.schedule, run.n_steps))
        if self._cuda is None:
            self.update()
            return loss
        self._cuda.update(self.update)
        if step + 1 < run.n_steps:  # read ahead while the device is busy
            first = self.share[: self.micro_batch_size]
            rows = self.rows(step + 1, first.start, first.stop)
            self._ahead = (step + 1, first.stop, self._to_device(rows))
        return loss

    def _gradients(self, step: int) -> Tensor:
        while True:
            try:
                return self._accumulate(step)
            except (MemoryError, RuntimeError) as error:
                # A sharded pass is collective, so no rank can restart it alone.
                if not is_out_of_memory(error) or self.micro_batch_size == 1 or self.ranks.sharded:
                    raise
            self._shrink()

    def _shrink(self) -> None:
        """Halve the micro-batch and discard the gradients so far."""
        self.update.discard()
        self.micro_batch_size = (self.micro_batch_size + 1) // 2
        self._ahead = None
        self.release_memory()

    def _accumulate(self, step: int) -> Tensor:
        """Accumulate this rank's gradients; return its part of the batch's mean loss, in nats per token."""
        share, micro = self.share, self.micro_batch_size
        total: Tensor | None = None
        for start in share[::micro]:
            loss = self._backward(self._tokens(step, start, min(start + micro, share.stop)))
            total = loss.double() if total is None else total.add_(loss)
        assert total is not None
        return total

    def _backward(self, tokens: Tensor) -> Tensor:
        """Accumulate the gradient of `tokens`, shape (B, T + 1); return their part of the mean loss."""
        if self._cuda is not None:
            return self._cuda.backward(tokens)
        bf16, keep = self.run.precision == "bf16", not self.ranks.sharded  # copies would be of whole weights
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=keep):
            loss = self.model.total_loss(tokens[:, :-1], tokens[:, 1:]) / self.run.batch_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _tokens(self, step: int, start: int, stop: int) -> Tensor:
        if self._ahead is not None and start == self.share.start and self._ahead[:2] == (step, stop):
            return self._ahead[2]
        return self._to_device(self.rows(step, start, stop))

    def _to_device(self, rows: NDArray[np.int64]) -> Tensor:
        tokens = torch.from_numpy(rows)
        if self.device.type == "cuda":
            return tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Disable Python's garbage collector: training steps create no reference cycles."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
