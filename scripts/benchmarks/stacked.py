"""Runs of one shape stacked into one batched model, against separate steps.

`python -m scripts.benchmarks.stacked` measures on the CPU, with one thread, what stacking K runs gains per
run: K times the step of one run over the step of the stack, in turn, medians of rounds. Workers of one thread
gain or lose the same factor, each with a stack of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from scripts.benchmarks.shapes import CPU_SHAPES, Shape, batches, counted, stepper
from scripts.benchmarks.timing import rounds, seconds
from sweep.train.models.gpt import GPT
from sweep.train.update import CLIP_EPS

DEMO_SHAPES = ("d32 L2 T32", "demo d24", "demo d96")
NUMBERS = (2, 4)
Tensors = Mapping[str, Tensor]
CALLS = 10  # steps of a contestant in a round


class StackedStep:
    """Takes one AdamW step of K runs at once, each on a batch of its own and clipped by its own norm."""

    def __init__(self, shape: Shape, n_runs: int, precision: str, device: str) -> None:
        self.run, self.device, self.bf16 = shape.run(precision), torch.device(device), precision == "bf16"
        models = []
        for seed in range(n_runs):
            model = GPT(self.run.model)
            model.initialise(torch.Generator().manual_seed(seed))
            models.append(model.to(device))
        self.base = models[0]
        self.parameters, self.buffers = stack_module_state(models)  # type: ignore[arg-type]
        optimizer = self.run.optimizer
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=optimizer.lr_peak, betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps, weight_decay=optimizer.weight_decay, fused=True,
        )  # fmt: skip
        self.rows = [batches(shape).rows for _ in models]

    def __call__(self, step: int) -> Tensor:
        """Take step `step`; return the mean loss of each run in nats per token, shape (K,)."""
        size = self.run.batch_size
        drawn = [rows(step * len(self.rows) + at, 0, size) for at, rows in enumerate(self.rows)]
        tokens = torch.stack([torch.from_numpy(each) for each in drawn]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            losses = vmap(self._loss)(self.parameters, self.buffers, tokens)
        losses.sum().backward()
        self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses.detach()

    def _loss(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], tokens: Tensor
    ) -> Tensor:
        logits = functional_call(self.base, (dict(parameters), dict(buffers)), (tokens[:, :-1],))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    def _clip(self) -> None:
        gradients = [parameter.grad for parameter in self.parameters.values()]
        squares = [gradient.flatten(1).square().sum(1) for gradient in gradients if gradient is not None]
        norms = torch.stack(squares).sum(0).sqrt()
        scale = (self.run.optimizer.grad_clip / (norms + CLIP_EPS)).clamp(max=1.0)
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(scale.view(-1, *(1,) * (gradient.dim() - 1)))


def compare(shape: Shape, numbers: Sequence[int], n_rounds: int, scratch: Path) -> dict[str, Any]:
    """Return the gain per run of stacking each number of runs, the median over valid rounds."""
    calls: dict[str, Callable[[], object]] = {"1": counted(stepper(shape, "fp32", "cpu", scratch))}
    for n_runs in numbers:
        stack = StackedStep(shape, n_runs, "fp32", "cpu")
        calls[str(n_runs)] = counted(stack)  # type: ignore[arg-type]
    for call in calls.values():
        seconds(call, 3)
    valid = rounds({name: partial(seconds, call, CALLS) for name, call in calls.items()}, n_rounds)
    gains = {n: [one.seconds["1"] * n / one.seconds[str(n)] for one in valid] for n in numbers}
    return {
        "shape": shape.name,
        "n_valid": len(valid),
        "step_s": {name: statistics.median(one.seconds[name] for one in valid) for name in calls},
        "gain": {n: statistics.median(values) for n, values in gains.items()},
        "range": {n: [min(values), max(values)] for n, values in gains.items()},
    }


def main() -> None:
    """Print a document for every shape, one a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="*", default=DEMO_SHAPES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for shape in CPU_SHAPES:
        if shape.name in options.shapes:
            print(json.dumps(compare(shape, NUMBERS, options.rounds, Path())), flush=True)


if __name__ == "__main__":
    main()
