"""The coordinate check: how much a few steps change the activations of models of every width.

A parametrisation under which one learning rate serves every width changes the typical coordinate of every
activation by the same amount at every width (Yang et al. 2022, arXiv:2203.03466, appendix D.1). The slope of
ln(change) over ln(width) is then 0; where it is above, wide models run away first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sweep.config import ExperimentConfig, ModelConfig, RunOptimizer
from sweep.plan import rules
from sweep.plan.parametrization import parametrized
from sweep.plan.shapes import shape_of_width
from sweep.train.models.gpt import GPT
from sweep.train.optim.optimizers import build_optimizer

N_SEQUENCES = 8  # of one batch, which every step sees again: what is compared is models, not data


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinateCheck:
    """Activations of one model before and after a few steps."""

    d_model: int
    change: Mapping[str, float]  # root mean square of the difference, by activation


def coordinate_checks(
    experiment: ExperimentConfig,
    widths: Sequence[int],
    *,
    vocab_size: int,
    n_steps: int,
    seeds: Sequence[int],
) -> tuple[CoordinateCheck, ...]:
    """The check at each width of the experiment's family, under its parametrisation and optimizer.

    Raises InputError for a width the family has not.
    """
    checks = []
    for width in widths:
        shape = shape_of_width(width, experiment.model, vocab_size)
        scaled = parametrized(experiment, shape)
        n_tokens = N_SEQUENCES * shape.seq_len
        cell = rules.Cell(budget=0.0, model=shape, n_tokens=n_tokens * n_steps, batch_tokens=n_tokens)
        optimizer = rules.run_optimizer(experiment.optimizer, cell, scaled.width_ratio)
        checks.append(coordinate_check(scaled.model, optimizer, n_steps=n_steps, seeds=seeds))
    return tuple(checks)


def coordinate_check(
    model: ModelConfig, optimizer: RunOptimizer, *, n_steps: int, seeds: Sequence[int]
) -> CoordinateCheck:
    """Train `model` for a few steps at a constant rate on one batch of random tokens.

    The change of each activation is its root mean square over positions and coordinates, and the geometric
    mean over seeds.
    """
    changes = [_changes(model, optimizer, n_steps, seed) for seed in seeds]
    mean = {
        name: math.exp(sum(math.log(change[name]) for change in changes) / len(changes))
        for name in changes[0]
    }
    return CoordinateCheck(d_model=model.d_model, change=mean)


def _changes(config: ModelConfig, optimizer: RunOptimizer, n_steps: int, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    model = GPT(config)
    model.initialise(generator)
    shape = (N_SEQUENCES, config.seq_len + 1)
    tokens = torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    before = activations(model, tokens[:, :-1])
    update = build_optimizer(model, optimizer)
    for _ in range(n_steps):
        model.losses(tokens[:, :-1], tokens[:, 1:]).mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.grad_clip)
        update.step()
        update.zero_grad(set_to_none=True)
    after = activations(model, tokens[:, :-1])
    return {name: float((after[name] - before[name]).square().mean().sqrt()) for name in before}


def activations(model: GPT, tokens: Tensor) -> dict[str, Tensor]:
    """What the model computes on the way: embedded tokens, each block's attention, MLP and sum, logits."""
    found: dict[str, Tensor] = {}
    watched: dict[str, nn.Module] = {"embedding": model.embedding}
    for index, block in enumerate(model.blocks):
        watched |= {f"{part} {index}": block.get_submodule(part) for part in ("attention", "mlp")}
        watched[f"block {index}"] = block
    hooks = [module.register_forward_hook(_keeper(found, name)) for name, module in watched.items()]
    with torch.no_grad():
        found["logits"] = model(tokens)
    for hook in hooks:
        hook.remove()
    found["embedding"] *= model.input_scale
    return found


def _keeper(found: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        found[name] = output.clone()

    return keep


def slopes(checks: Sequence[CoordinateCheck]) -> dict[str, float]:
    """The least-squares slope of ln(change) over ln(width), by activation."""
    widths = [math.log(check.d_model) for check in checks]
    center = sum(widths) / len(widths)
    spread = sum((width - center) ** 2 for width in widths)
    return {
        name: sum(
            (width - center) * math.log(check.change[name])
            for width, check in zip(widths, checks, strict=True)
        )
        / spread
        for name in checks[0].change
    }
