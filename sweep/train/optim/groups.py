"""Parameters by what they are, and the optimizer groups made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Kind = Literal["hidden", "table", "vector"]
"""hidden: the matrices of the blocks, both of whose sides grow with the width; table: embedding, positions
and head, one of whose sides does; vector: gains and biases."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What an optimizer does with one kind of parameter."""

    lr_scale: float = 1.0  # of the run's learning rate
    weight_decay: float = 0.0


def kind(name: str, parameter: Tensor) -> Kind:
    """The kind of a parameter, by its name in the model."""
    if parameter.dim() < 2:
        return "vector"
    return "hidden" if ".blocks." in f".{name}" else "table"


def grouped(model: nn.Module, settings: Mapping[Kind, Setting], lr: float) -> list[dict[str, Any]]:
    """Optimizer groups of the kinds in `settings`, those that are set alike in one: a group costs a launch.

    A group remembers its `lr_scale`, which `set_lr` applies.
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
