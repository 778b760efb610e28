"""Kinds of parameters and optimizer groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Kind = Literal["hidden", "table", "vector"]
"""hidden: matrices of the blocks, where both sides grow with the width; table: embedding, positions and head,
where one side does; vector: gains and biases."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Optimizer settings of one kind of parameter."""

    lr_scale: float = 1.0  # factor on the run's learning rate
    weight_decay: float = 0.0


def kind(name: str, parameter: Tensor) -> Kind:
    """Return the kind of a parameter by its name in the model."""
    if parameter.dim() < 2:
        return "vector"
    return "hidden" if ".blocks." in f".{name}" else "table"


def grouped(model: nn.Module, settings: Mapping[Kind, Setting], lr: float) -> list[dict[str, Any]]:
    """Return optimizer groups; kinds with equal settings share one, since each group costs a kernel launch.

    A group keeps its `lr_scale`, which `set_lr` applies.
    """
    members: dict[Setting, list[Tensor]] = {setting: [] for setting in settings.values()}
    for setting, parameter in _chosen(model, settings):
        members[setting].append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * setting.lr_scale,
            "lr_scale": setting.lr_scale,
            "weight_decay": setting.weight_decay,
        }
        for setting, parameters in members.items()
        if parameters
    ]


def _chosen(model: nn.Module, settings: Mapping[Kind, Setting]) -> Iterator[tuple[Setting, Tensor]]:
    for name, parameter in model.named_parameters():
        setting = settings.get(kind(name, parameter))
        if setting is not None:
            yield setting, parameter
