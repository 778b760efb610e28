"""Coordinate check of a parametrisation: change of activations over a few steps by width, and its figure.

Where one learning rate suits every width, a few steps change the typical coordinate of every activation by
the same amount at every width (Yang et al. 2022, arXiv:2203.03466, appendix D.1): the slope of ln(change)
over ln(width) is 0. With a positive slope, wide models diverge first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from sweep.config import ExperimentConfig, ModelConfig, RunOptimizer
from sweep.plan import rules
from sweep.plan.parametrization import parametrized
from sweep.plan.shapes import shape_of_width
from sweep.report.figures.style import count_ticks, new_figure, style
from sweep.train.models.gpt import GPT
from sweep.train.optim.optimizers import build_optimizer

N_SEQUENCES = 8  # of the one batch that all steps use
PANEL_INCHES = 3.0
Y_MARGIN = 1.3  # factor between the extreme changes and the limits of the y axis


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinateCheck:
    """Change of one model's activations over a few steps."""

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
    """Check each width of the experiment's family under its parametrisation and optimizer.

    Raises InputError for a width that the family does not have.
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
    """Return intermediate tensors: embedded tokens, each block's attention, MLP and output, logits."""
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
    """Return the least-squares slope of ln(change) over ln(width) by activation."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinateCurve:
    """Change over width of one activation under one parametrisation and optimizer."""

    panel: str
    activation: str
    slope: float  # of ln(change) over ln(width)
    widths: tuple[int, ...]
    changes: tuple[float, ...]  # root mean square


def coordinate_curves(document: Mapping[str, Any]) -> list[CoordinateCurve]:
    """Return the curves of a document of scripts/coordinate_check, in its order."""
    return [
        CoordinateCurve(
            panel=f"{check['optimizer']}, {check['parametrization']}",
            activation=activation,
            slope=slope,
            widths=tuple(row["d_model"] for row in check["widths"]),
            changes=tuple(row["change"][activation] for row in check["widths"]),
        )
        for check in document["checks"]
        for activation, slope in check["slopes"].items()
    ]


def coordinate_figure(curves: Sequence[CoordinateCurve], n_steps: int) -> Figure:
    """Draw a panel for each optimizer and parametrisation; under mup the lines are flat."""
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    with style():
        figure, axes = new_figure(width=PANEL_INCHES * len(panels), height=3.4, n_panels=len(panels))
        for axis, panel in zip(axes, panels, strict=True):
            draw_coordinates(axis, [curve for curve in curves if curve.panel == panel])
        axes[0].set_ylabel(f"change of activations in {n_steps} steps (rms)")
        low = min(change for curve in curves for change in curve.changes)
        high = max(change for curve in curves for change in curve.changes)
        for axis in axes:
            axis.set_ylim(low / Y_MARGIN, high * Y_MARGIN)
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def draw_coordinates(axes: Axes, curves: Sequence[CoordinateCurve]) -> None:
    """Draw change over width on log axes, one line per activation."""
    for number, curve in enumerate(curves):
        axes.plot(curve.widths, curve.changes, "o-", ms=3, color=f"C{number}", label=curve.activation)
    steepest = max(curve.slope for curve in curves)
    axes.set_title(f"{curves[0].panel}\nsteepest slope {steepest:+.2f}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("width")
    count_ticks(axes.xaxis)
