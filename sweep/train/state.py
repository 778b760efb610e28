"""A run's tensors by name, for its checkpoint, and back into a model and an optimizer of any kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sweep.train.ranks.base import Ranks

MODEL, OPTIMIZER = "model.", "optimizer."


def named_tensors(model: nn.Module, optimizer: Optimizer, ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """Every weight as `model.NAME` and every tensor the optimizer keeps as `optimizer.SLOT.NAME`, whole.

    All ranks must go through them together; one is gathered at a time.
    """
    for name, parameter in model.named_parameters():
        yield MODEL + name, ranks.whole(parameter.detach())
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):  # SGD keeps a None for what it does not have
                yield f"{OPTIMIZER}{slot}.{name}", ranks.whole(value.detach())


def restore_tensors(
    tensors: Mapping[str, Tensor], model: nn.Module, optimizer: Optimizer, ranks: Ranks
) -> None:
    """Put what `named_tensors` gave back in place; nothing refers to `tensors` afterwards."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(ranks.part(tensors[MODEL + name], parameter))
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(OPTIMIZER):
            slot, _, name = key.removeprefix(OPTIMIZER).partition(".")
            slots.setdefault(name, {})[slot] = ranks.part(tensor, parameters[name]).clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _by_index(slots, parameters, optimizer)})


def _by_index(
    slots: Mapping[str, dict[str, Tensor]], parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> dict[int, dict[str, Tensor]]:
    """A state dict's numbering: parameters in the order of their groups."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    ordered = (names[id(p)] for group in optimizer.param_groups for p in group["params"])
    return {index: slots[name] for index, name in enumerate(ordered) if name in slots}
