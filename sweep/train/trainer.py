"""State of a run in progress: model, optimizer, loss sums and curve, with saving and restoring."""

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
from sweep.train.checkpoint import Checkpoint, named_tensors, restore_tensors
from sweep.train.evaluate import Score, evaluate
from sweep.train.models.gpt import GPT
from sweep.train.noise_scale import NoiseScale
from sweep.train.optim.schedules import lr_frac
from sweep.train.ranks.base import ALONE, Command, Ranks
from sweep.train.step import TrainingStep
from sweep.train.time_ledger import TimeLedger

RECORDS_PER_OCTAVE = 4  # of the training curve; records are at log-spaced steps
MAX_RECORD_GAP = 1 / 50  # of the run's steps: bounds the delay in detecting a divergence
TAIL_FRAC = 0.1  # of the steps, the last ones, averaged into train_loss


@dataclass(kw_only=True, slots=True)
class Progress:
    """Progress of a run; a checkpoint stores it next to the tensors."""

    step: int = 0  # optimizer steps done
    trunk_steps: int = 0  # steps of a shared trunk, trained by another run
    curve: list[CurvePoint] = field(default_factory=list)


class Trainer:
    """A run in progress: its state is the model, the optimizer, the loss sums and `progress`.

    Each rank has one, and `step`, `state`, `restore` and `score` run on all ranks: rank 0 announces the call
    to the others.
    """

    def __init__(
        self,
        run: RunConfig,
        placement: Placement,
        data: PreparedData,
        ranks: Ranks = ALONE,
        ledger: TimeLedger | None = None,
    ) -> None:
        self.run, self.placement, self.ranks = run, placement, ranks
        self.ledger = ledger or TimeLedger()
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
        # nats per token summed over steps, since the last record and over the tail; kept on the device, since
        # reading them synchronises
        self.loss_sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.progress = Progress()
        # nats per token by step: a run that branches off computes its own curve from them
        self.step_losses: Tensor | None = None
        if placement.trunk is not None:
            shape = placement.trunk.own_step
            self.step_losses = torch.zeros(shape, dtype=torch.float64, device=self.device)
        self.tail_start = tail_start(run)
        self.records = frozenset(record_steps(run.n_steps))

    def step(self) -> None:
        """Take one optimizer step over `batch_tokens` tokens."""
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
        """Append a record of the interval since the last one to the curve, and return it."""
        previous = self.progress.curve[-1].step if self.progress.curve else 0
        point = curve_point(self.run, self.progress.step, previous, float(self.loss_sums[0]))
        self.loss_sums[0] = 0.0
        if math.isfinite(point.train_loss):
            self.progress.curve.append(point)
        return point

    def tail_loss(self) -> float:
        """Return the mean training loss over the last tenth of the steps, in nats per token."""
        return float(self.loss_sums[1]) / (self.run.n_steps - self.tail_start)

    def score(
        self, windows: EvaluationWindows, on_batch: Callable[[], None] = lambda: None, number: int = 0
    ) -> Score:
        """Return the loss of the current weights on `windows`, those of this number in `all_windows`.

        Only sharded ranks all take part in it.
        """
        if self.ranks.sharded:
            self.ranks.announce(Command.EVALUATE, number)
        return evaluate(self.model, windows, on_batch=on_batch)

    def state(self) -> Checkpoint:
        """Return the complete state for a bit-identical resume; tensors on the CPU are not copied."""
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
        """Restore the state and the execution choices of a checkpoint."""
        self.ranks.announce(Command.RESTORE, checkpoint.step)
        restore_tensors(checkpoint.tensors, self.model, self.optimizer, self.ranks)
        self.loss_sums.copy_(checkpoint.tensors["loss_sums"])
        if self.noise is not None and "noise_sums" in checkpoint.tensors:
            self.noise.sums.copy_(checkpoint.tensors["noise_sums"])
        if self.step_losses is not None and "step_losses" in checkpoint.tensors:
            self.step_losses.copy_(checkpoint.tensors["step_losses"])
        else:  # the checkpoint is older than the sharing of the trunk: earlier losses are unknown
            self.step_losses = None
        self.take_step.choose(checkpoint.values["choices"])
        self.ledger.inherit(checkpoint.values["ledger"])
        curve = [CurvePoint(**point) for point in checkpoint.values["curve"]]
        self.progress = Progress(
            step=checkpoint.step, trunk_steps=checkpoint.values["trunk_steps"], curve=curve
        )

    def n_state_bytes(self) -> int:
        """Return the approximate size of a checkpoint: weights and two moments."""
        return 3 * sum(parameter.nbytes for parameter in self.model.parameters())

    def seconds(self) -> dict[str, float]:
        """Return seconds by activity, earlier attempts included."""
        self.ledger.move("train", "compile", self.take_step.compile_s)
        self.take_step.compile_s = 0.0
        return {str(activity): seconds for activity, seconds in self.ledger.seconds().items()}

    def wait(self) -> None:
        """Wait for queued work of the device, so that its time is attributed correctly."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def curve_point(run: RunConfig, done: int, previous: int, loss_sum: float) -> CurvePoint:
    """Return the record after `done` steps; `loss_sum` is over the steps since record `previous`."""
    n_tokens = done * run.batch_tokens
    return CurvePoint(
        step=done,
        n_tokens=n_tokens,
        flops=flops.count(run.model, n_tokens).flops,
        train_loss=loss_sum / (done - previous),
        lr=run.optimizer.lr_peak * lr_frac(done - 1, run.schedule, run.n_steps),
    )


def tail_start(run: RunConfig) -> int:
    """Return the first step, from 0, of the tail averaged into train_loss."""
    return run.n_steps - max(1, math.ceil(TAIL_FRAC * run.n_steps))


def record_steps(n_steps: int) -> list[int]:
    """Return the steps with a record: log-spaced, gaps up to about n_steps / 50, the last step included.

    A record is a mean over its gap, so the one before the last is omitted if the last gap would be too short.

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
