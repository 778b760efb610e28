"""Gradient clipping and optimizer update, in few large operations."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

CLIP_EPS = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm


class Update(Protocol):
    """Consumes the gradients of the parameters: clips them, steps and clears them."""

    def __call__(self) -> None:
        """Update with the current learning rates of the optimizer's groups."""
        ...

    def discard(self) -> None:
        """Clear the gradients of a batch that is restarted."""
        ...


def build_update(model: nn.Module, optimizer: torch.optim.Optimizer, grad_clip: float) -> Update:
    """Return the fastest update for this optimizer: flat storage for AdamW, otherwise torch's own.

    Flat storage needs unsharded fp32 parameters on one device.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    plain = all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in parameters)
    if isinstance(optimizer, torch.optim.AdamW) and plain and len({p.device for p in parameters}) == 1:
        return FlatUpdate(optimizer, grad_clip)
    return PlainUpdate(model, optimizer, grad_clip)


class PlainUpdate:
    """Clipping and step by torch's own functions."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, grad_clip: float) -> None:
        self.model, self.optimizer, self.grad_clip = model, optimizer, grad_clip
        # a captured backward pass writes to the gradient tensors of its capture
        self.keeps_gradients = all(type(p) is nn.Parameter for p in model.parameters())

    def __call__(self) -> None:
        """Clip, step and clear the gradients."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.optimizer.step()
        self.discard()

    def discard(self) -> None:
        """Set the gradients to None, or to zero in place where a CUDA graph may write them."""
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)


class FlatUpdate:
    """AdamW over one flat tensor per group: parameters, gradients and moments become views of flat storage.

    The model's parameters keep their names and shapes, the optimizer's state stays one set of tensors per
    parameter, and a loaded state is copied into the flat storage.
    """

    def __init__(self, optimizer: torch.optim.AdamW, grad_clip: float) -> None:
        self.optimizer, self.grad_clip = optimizer, grad_clip
        self.groups = [_FlatGroup(group) for group in optimizer.param_groups if group["params"]]
        self._adopt()
        # a weak reference: a cycle with the optimizer would keep the weights alive after the run
        adopt = weakref.WeakMethod(self._adopt)
        optimizer.register_load_state_dict_post_hook(lambda _: _call(adopt))

    def __call__(self) -> None:
        """Clip by the norm over all groups, update every group, clear the gradients."""
        self.load_rates()
        self.apply()

    def load_rates(self) -> None:
        """Read the current learning rates of the optimizer's groups."""
        for group in self.groups:
            group.load_rate()

    def apply(self) -> None:
        """Run the update with the loaded rates, on the device only, so that a CUDA graph can capture it."""
        norms = [torch.linalg.vector_norm(group.gradient) for group in self.groups]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        divisor = ((norm + CLIP_EPS) / self.grad_clip).clamp_(min=1.0)
        for group in self.groups:
            group.step(divisor)

    def discard(self) -> None:
        """Clear the gradients of a batch that is restarted."""
        for group in self.groups:
            group.discard()

    def _adopt(self) -> None:
        """Move the optimizer's state into flat storage, with views in its place.

        Loading a state gives the optimizer new group dictionaries, so their settings are read again.
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
    """One parameter group: settings, flat parameters, gradient and moments."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.parameters: list[nn.Parameter] = settings["params"]
        device = self.parameters[0].device
        n_elements = sum(p.numel() for p in self.parameters)
        self.values = torch.empty(n_elements, device=device)
        self.gradient, self.mean, self.square = (torch.zeros_like(self.values) for _ in range(3))
        self.steps = torch.zeros(len(self.parameters), device=device)
        # a tensor on a GPU, so that a CUDA graph reads the current rate; a number would be a constant in it
        self.lr = torch.zeros((), device=device) if device.type == "cuda" else 0.0
        views = zip(self.parameters, self._views(self.values), self._views(self.gradient), strict=True)
        for parameter, value, gradient in views:
            value.copy_(parameter.detach())
            parameter.data, parameter.grad = value, gradient
        self.first = self.parameters[0].grad

    def adopt(self, state: dict[Any, Any]) -> None:
        """Copy the optimizer's state of each parameter into flat storage and replace it by views."""
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
        """Read the learning rate from the settings, without synchronising."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(self.settings["lr"])
        else:
            self.lr = self.settings["lr"]

    def step(self, divisor: Tensor) -> None:
        """Apply AdamW to the gradient divided by `divisor` (Loshchilov & Hutter 2019, algorithm 2)."""
        assert self.parameters[0].grad is self.first, "the gradients of a flat update were replaced"
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

    def discard(self) -> None:
        """Clear the gradients of a batch that is restarted."""
        self.gradient.zero_()

    def _views(self, flat: Tensor) -> list[Tensor]:
        """Split a flat tensor into views with the shapes of the parameters."""
        pieces = flat.split([p.numel() for p in self.parameters])  # type: ignore[no-untyped-call]
        return [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]
