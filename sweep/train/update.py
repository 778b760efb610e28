"""What follows the gradients of a step: their norm clipped and the update, in few large operations."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

CLIP_EPS = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm


class Update(Protocol):
    """Uses up the gradients on the parameters: clips them, steps, and forgets them."""

    def __call__(self) -> None:
        """Update with the learning rates that the optimizer's groups hold now."""
        ...

    def forget(self) -> None:
        """Drop the gradients of a batch that is begun again."""
        ...


def build_update(model: nn.Module, optimizer: torch.optim.Optimizer, grad_clip: float) -> Update:
    """The fastest update there is for this optimizer: on flat storage for AdamW, else parameter by parameter.

    Parameters that are sharded over processes, or not of one device in fp32, stay as they are.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    plain = all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in parameters)
    if isinstance(optimizer, torch.optim.AdamW) and plain and len({p.device for p in parameters}) == 1:
        return FlatUpdate(optimizer, grad_clip)
    return PlainUpdate(model, optimizer, grad_clip)


class PlainUpdate:
    """torch's own clipping and step."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, grad_clip: float) -> None:
        self.model, self.optimizer, self.grad_clip = model, optimizer, grad_clip
        # Backward passes add to what is there, captured ones to the very tensors of their capture.
        self.keeps_gradients = all(type(p) is nn.Parameter for p in model.parameters())

    def __call__(self) -> None:
        """Clip, step, and forget the gradients."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Set the gradients to None, or to zero in place where a graph may write them."""
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)


class FlatUpdate:
    """AdamW over one flat tensor for each group: parameters and moments become views of flat storage.

    To others nothing changes: the model's parameters keep their names and shapes, the optimizer's state stays
    one set of tensors for each parameter, and a loaded state is taken over. The gradients are views that the
    backward pass adds to.
    """

    def __init__(self, optimizer: torch.optim.AdamW, grad_clip: float) -> None:
        self.optimizer, self.grad_clip = optimizer, grad_clip
        self.groups = [_FlatGroup(group) for group in optimizer.param_groups if group["params"]]
        self._adopt()
        # Weakly, as the optimizer is ours: what refers to itself outlives the run, weights and all.
        adopt = weakref.WeakMethod(self._adopt)
        optimizer.register_load_state_dict_post_hook(lambda _: _call(adopt))

    def __call__(self) -> None:
        """Clip by the norm over all groups, update every group, forget the gradients."""
        self.load_rates()
        self.apply()

    def load_rates(self) -> None:
        """Take over the learning rates that the optimizer's groups hold now."""
        for group in self.groups:
            group.load_rate()

    def apply(self) -> None:
        """The update itself, with the rates that were loaded: on the device alone, so a graph can hold it."""
        norms = [torch.linalg.vector_norm(group.gradient) for group in self.groups]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        divisor = ((norm + CLIP_EPS) / self.grad_clip).clamp_(min=1.0)
        for group in self.groups:
            group.step(divisor)

    def forget(self) -> None:
        """Drop the gradients of a batch that is begun again."""
        for group in self.groups:
            group.forget()

    def _adopt(self) -> None:
        """Take the optimizer's state into flat storage, and leave views of it in its place.

        Loading a state gives the optimizer new group dictionaries, where the learning rate is set.
        """
        settings = [group for group in self.optimizer.param_groups if group["params"]]
        for group, own in zip(self.groups, settings, strict=True):
            group.settings = own
            group.adopt(self.optimizer.state)


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    alive = method()
    if alive is not None:
        alive()


class _FlatGroup:
    """One parameter group: its settings, its flat parameters, gradient and moments."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.parameters: list[nn.Parameter] = settings["params"]
        device = self.parameters[0].device
        n_elements = sum(p.numel() for p in self.parameters)
        self.values = torch.empty(n_elements, device=device)
        self.gradient, self.mean, self.square = (torch.zeros_like(self.values) for _ in range(3))
        self.steps = torch.zeros(len(self.parameters), device=device)
        # On a GPU in memory, where a graph of the update reads it; as a number it would be part of the graph.
        self.lr = torch.zeros((), device=device) if device.type == "cuda" else 0.0
        views = zip(self.parameters, self._views(self.values), self._views(self.gradient), strict=True)
        for parameter, value, gradient in views:
            value.copy_(parameter.detach())
            parameter.data, parameter.grad = value, gradient
        self.first = self.parameters[0].grad

    def adopt(self, state: dict[Any, Any]) -> None:
        """Copy what the optimizer knows of each parameter, and put views in its place."""
        means, squares = self._views(self.mean), self._views(self.square)
        steps: Iterable[Tensor] = self.steps.unbind()
        for parameter, mean, square, step in zip(self.parameters, means, squares, steps, strict=True):
            known = state.get(parameter, {})
            own = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
            for name, view in own.items():
                if name in known:
                    view.copy_(known[name])
                else:
                    view.zero_()
            state[parameter] = own

    def load_rate(self) -> None:
        """Take the learning rate from the settings; nothing waits for the device."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(self.settings["lr"])
        else:
            self.lr = self.settings["lr"]

    def step(self, divisor: Tensor) -> None:
        """AdamW on the gradient over `divisor` (Loshchilov & Hutter 2019, algorithm 2)."""
        assert self.parameters[0].grad is self.first, "gradients of a flat update stay where they are"
        self.steps += 1
        settings = self.settings
        beta1, beta2 = settings["betas"]
        with torch.no_grad():
            torch._fused_adamw_(
                [self.values], [self.gradient], [self.mean], [self.square], [], [self.steps[0]],
                lr=self.lr, beta1=beta1, beta2=beta2, weight_decay=settings["weight_decay"],
                eps=settings["eps"], amsgrad=False, maximize=False, grad_scale=divisor, found_inf=None,
            )  # fmt: skip
        self.gradient.zero_()

    def forget(self) -> None:
        """Drop gradients of a batch that is begun again."""
        self.gradient.zero_()

    def _views(self, flat: Tensor) -> list[Tensor]:
        """Pieces of a flat tensor in the shapes of the parameters."""
        pieces = flat.split([p.numel() for p in self.parameters])  # type: ignore[no-untyped-call]
        return [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]
