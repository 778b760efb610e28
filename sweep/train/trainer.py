"""A run in progress: its model, optimizer, sums and curve, and how all of it is saved and taken up again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from sweep import flops
from sweep.config import RunConfig
from sweep.data.batches import EvaluationWindows, TrainBatches
from sweep.data.shards import PreparedData
from sweep.identity import code_version
from sweep.records import CurvePoint, Placement
from sweep.train.checkpoint import Checkpoint
from sweep.train.evaluate import Score, evaluate
from sweep.train.models.gpt import GPT
from sweep.train.noise_scale import NoiseScale
from sweep.train.optim.schedules import lr_frac
from sweep.train.ranks.base import ALONE, Command, Ranks
from sweep.train.state import named_tensors, restore_tensors
from sweep.train.step import TrainingStep
from sweep.train.time_ledger import Ledger

RECORDS_PER_OCTAVE = 4  # of the training curve, at log-spaced steps
MAX_RECORD_GAP = 1 / 50  # of the run's steps: a run that diverges is seen this soon
TAIL_FRAC = 0.1  # of the steps, over which train_loss is averaged


@dataclass(kw_only=True, slots=True)
class Progress:
    """The part of a run's state that is not weights: what a checkpoint keeps besides tensors."""

    step: int = 0  # optimizer steps done
    trunk_steps: int = 0  # of `step`, those of a trunk that another run had trained
    curve: list[CurvePoint] = field(default_factory=list)


class Trainer:
    """A run in progress: its state is the model, the optimizer, the loss sums and `progress`.

    With several ranks each has one, and `step`, `state`, `restore` and `score` are called on all of them:
    rank 0's announces what the others are to call.
    """

    def __init__(
        self,
        run: RunConfig,
        placement: Placement,
        data: PreparedData,
        ranks: Ranks = ALONE,
        ledger: Ledger | None = None,
    ) -> None:
        self.run, self.placement, self.ranks = run, placement, ranks
        self.ledger = ledger or Ledger()
        self.device = torch.device(placement.device)
        self.batches = TrainBatches(data.train, run.model.seq_len, run.batch_size, run.seed)
        model = GPT(run.model)
        model.initialise(torch.Generator().manual_seed(run.seed))
        self.model = ranks.place(model, self.device)
        self.take_step = TrainingStep(self.model, run, placement, self.batches.rows, ranks)
        self.optimizer = self.take_step.optimizer
        measures = placement.measure_noise_scale and ranks.rank == 0 and not ranks.sharded
        self.noise = (
            NoiseScale(self.model, run, self.batches.rows, placement.micro_batch_size) if measures else None
        )
        # nats per token, summed over steps: since the last record, and over the tail. On the device: reading
        # them waits for it.
        self.loss_sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.progress = Progress()
        # nats per token, by step: what a run that branches off here needs for a curve of its own
        self.step_losses: Tensor | None = None
        if placement.trunk is not None:
            shape = placement.trunk.own_step
            self.step_losses = torch.zeros(shape, dtype=torch.float64, device=self.device)
        self.tail_start = tail_start(run)
        self.records = frozenset(record_steps(run.n_steps))

    def step(self) -> None:
        """One optimizer step over `batch_tokens` tokens."""
        self.ranks.announce(Command.STEP)
        if self.noise is not None:
            self.noise.measure(self.progress.step)
        loss = self.take_step(self.progress.step)
        self.loss_sums[0] += loss
        if self.step_losses is not None and self.progress.step < len(self.step_losses):
            self.step_losses[self.progress.step] = loss
        if self.progress.step >= self.tail_start:
            self.loss_sums[1] += loss
        self.progress.step += 1

    def record(self) -> CurvePoint:
        """Close the interval since the last record of the curve."""
        previous = self.progress.curve[-1].step if self.progress.curve else 0
        point = curve_point(self.run, self.progress.step, previous, float(self.loss_sums[0]))
        self.loss_sums[0] = 0.0
        if math.isfinite(point.train_loss):
            self.progress.curve.append(point)
        return point

    def tail_loss(self) -> float:
        """Mean training loss over the last tenth of the steps, in nats per token."""
        return float(self.loss_sums[1]) / (self.run.n_steps - self.tail_start)

    def score(self, windows: EvaluationWindows, on_batch: Callable[[], None] = lambda: None) -> Score:
        """The held-out loss of the weights as they are. Ranks that have all of them leave it to rank 0."""
        if self.ranks.sharded:
            self.ranks.announce(Command.EVALUATE)
        return evaluate(self.model, windows, on_batch=on_batch)

    def state(self) -> Checkpoint:
        """Everything needed to go on, bit for bit; the tensors are on the CPU, there not copied."""
        self.ranks.announce(Command.STATE)
        keep = self.ranks.rank == 0
        gathered = named_tensors(self.model, self.optimizer, self.ranks)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in gathered if keep}
        tensors["loss_sums"] = self.loss_sums.cpu()
        if self.noise is not None:
            tensors["noise_sums"] = self.noise.sums
        if self.step_losses is not None:
            tensors["step_losses"] = self.step_losses.cpu()
        return Checkpoint(
            step=self.progress.step,
            tensors=tensors,
            values={
                "code_version": code_version(),
                "trunk_steps": self.progress.trunk_steps,
                "curve": [asdict(point) for point in self.progress.curve],
                "choices": dict(self.take_step.choices),
                "ledger": self.seconds(),
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state a checkpoint holds, and how the run was carried out."""
        self.ranks.announce(Command.RESTORE, checkpoint.step)
        restore_tensors(checkpoint.tensors, self.model, self.optimizer, self.ranks)
        self.loss_sums.copy_(checkpoint.tensors["loss_sums"])
        if self.noise is not None and "noise_sums" in checkpoint.tensors:
            self.noise.sums.copy_(checkpoint.tensors["noise_sums"])
        if self.step_losses is not None and "step_losses" in checkpoint.tensors:
            self.step_losses.copy_(checkpoint.tensors["step_losses"])
        else:  # begun when nobody shared the trunk: the losses so far are not known
            self.step_losses = None
        self.take_step.choose(checkpoint.values["choices"])
        self.ledger.inherit(checkpoint.values["ledger"])
        curve = [CurvePoint(**point) for point in checkpoint.values["curve"]]
        self.progress = Progress(
            step=checkpoint.step, trunk_steps=checkpoint.values["trunk_steps"], curve=curve
        )

    def n_state_bytes(self) -> int:
        """About what a checkpoint holds: weights and two moments each, of which others may keep fewer."""
        return 3 * sum(parameter.nbytes for parameter in self.model.parameters())

    def seconds(self) -> dict[str, float]:
        """By activity, what this attempt took so far and what it took over."""
        self.ledger.move("train", "compile", self.take_step.compile_s)
        self.take_step.compile_s = 0.0
        return {str(activity): seconds for activity, seconds in self.ledger.seconds().items()}

    def wait(self) -> None:
        """Until the device has done what it was told, so that what comes next is booked for itself."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def curve_point(run: RunConfig, done: int, previous: int, loss_sum: float) -> CurvePoint:
    """The record after `done` steps; `loss_sum` is over the steps since record `previous`."""
    n_tokens = done * run.batch_tokens
    return CurvePoint(
        step=done,
        n_tokens=n_tokens,
        flops=flops.count(run.model, n_tokens).flops,
        train_loss=loss_sum / (done - previous),
        lr=run.optimizer.lr_peak * lr_frac(done - 1, run.schedule, run.n_steps),
    )


def tail_start(run: RunConfig) -> int:
    """The first step, from 0, of the tail over which the training loss is averaged."""
    return run.n_steps - max(1, math.ceil(TAIL_FRAC * run.n_steps))


def record_steps(n_steps: int) -> list[int]:
    """Steps after which the curve gets a record: log-spaced, gaps up to about n_steps / 50, the last kept.

    A record is a mean over its gap, so the one before the last is left out where it would cut the last short.

    >>> record_steps(10)
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    steps, gap, step = [], 1, 1
    while step < n_steps:
        steps.append(step)
        gap = max(1, min(int(MAX_RECORD_GAP * n_steps), round(step * (2 ** (1 / RECORDS_PER_OCTAVE) - 1))))
        step += gap
    if steps and n_steps - steps[-1] < gap / 2:
        steps.pop()
    return [*steps, n_steps]
