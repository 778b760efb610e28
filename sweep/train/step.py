"""One optimizer step: the gradient of a batch's mean loss, in micro-batches where needed, clip and update."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweep.config import RunConfig
from sweep.models.gemm import bf16_linear_maps
from sweep.models.gpt import GPT
from sweep.optim.optimizers import build_optimizer, set_lr
from sweep.optim.schedules import lr_frac
from sweep.records import Placement
from sweep.train.cuda import CudaLoss
from sweep.train.update import build_update

Rows = Callable[[int, int, int], NDArray[np.int64]]
"""The sequences `start` to `stop` of the batch of a step, shape (stop - start, seq_len + 1)."""


class TrainingStep:
    """Carries out the steps of one run on one device; owns the optimizer and the size of a micro-batch.

    `choices` are the kernels that were chosen by timing them: a run that is taken up again gets them back.
    """

    def __init__(
        self,
        model: GPT,
        run: RunConfig,
        placement: Placement,
        rows: Rows,
        choices: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.run, self.rows = model, run, rows
        self.device = torch.device(placement.device)
        self.optimizer = build_optimizer(model, run.optimizer)
        self.update = build_update(model, self.optimizer, run.optimizer.grad_clip)
        self.micro_batch_size = min(placement.micro_batch_size or run.batch_size, run.batch_size)
        self._cuda: CudaLoss | None = None
        if self.device.type == "cuda":
            # all workers of a machine, and later sweeps, find what one of them compiled
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(placement.data_dir / "compiled"))
            deterministic = bool(getattr(placement, "deterministic", False))
            self._cuda = CudaLoss(model, run, self.device, choices or {}, deterministic=deterministic)
        self._ahead: tuple[int, int, Tensor] | None = None  # the first rows of the next step, on their way

    @property
    def choices(self) -> dict[str, Any]:
        """Kernel choices by name, as JSON can hold them; empty where nothing is chosen by timing."""
        return {} if self._cuda is None else dict(self._cuda.choices)

    def restore_choices(self, choices: dict[str, Any]) -> None:
        """Use the choices of the run that this one takes up, before its first step here."""
        if self._cuda is not None:
            self._cuda.choices = dict(choices)

    def __call__(self, step: int) -> Tensor:
        """Take step number `step`, from 0. Returns the batch's mean loss in nats per token, on the device.

        Where memory runs out the micro-batch is halved and the batch begun again: the same step, to rounding.
        Raises torch.OutOfMemoryError when one sequence is too much.
        """
        run = self.run
        loss = self._gradients(step)
        set_lr(self.optimizer, run.optimizer.lr_peak * lr_frac(step, run.schedule, run.n_steps))
        self.update()
        if self._cuda is not None and step + 1 < run.n_steps:  # while the device is busy
            first = min(self.micro_batch_size, run.batch_size)
            self._ahead = (step + 1, first, self._to_device(self.rows(step + 1, 0, first)))
        return loss

    def _gradients(self, step: int) -> Tensor:
        while True:
            try:
                return self._accumulate(step)
            except torch.OutOfMemoryError:
                if self.micro_batch_size == 1:
                    raise
            self._shrink()

    def _shrink(self) -> None:
        """Halve the micro-batch and forget the gradients so far."""
        self.optimizer.zero_grad(set_to_none=True)
        for group in getattr(self.update, "groups", ()):
            group.forget()
        self.micro_batch_size = (self.micro_batch_size + 1) // 2
        self._ahead = None
        if self._cuda is not None:
            self._cuda.release()
            torch.cuda.empty_cache()

    def _accumulate(self, step: int) -> Tensor:
        """Mean loss of the batch, in nats per token; its gradient is left on the parameters."""
        size, micro = self.run.batch_size, self.micro_batch_size
        total: Tensor | None = None
        for start in range(0, size, micro):
            stop = min(start + micro, size)
            loss = self._backward(self._tokens(step, start, stop))
            total = loss.double() if total is None else total.add_(loss)
        assert total is not None
        return total

    def _backward(self, tokens: Tensor) -> Tensor:
        """The part of the batch's mean loss that `tokens` make, its gradient added to the parameters'."""
        if self._cuda is not None:
            return self._cuda.backward(tokens)
        with bf16_linear_maps(self.run.precision == "bf16"):
            loss = self.model.total_loss(tokens[:, :-1], tokens[:, 1:]) / self.run.batch_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _tokens(self, step: int, start: int, stop: int) -> Tensor:
        if self._ahead is not None and start == 0 and self._ahead[:2] == (step, stop):
            return self._ahead[2]
        return self._to_device(self.rows(step, start, stop))

    def _to_device(self, rows: NDArray[np.int64]) -> Tensor:
        tokens = torch.from_numpy(rows)
        if self.device.type == "cuda":
            return tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Steps leave no cycles behind: Python need not look for them while they are taken."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
