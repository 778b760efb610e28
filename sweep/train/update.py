"""Gradient clipping and optimizer update, in few large operations."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sweep.train.optim.muon import orthogonalised

CLIP_EPS = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm


class Update(Protocol):
    """Consumes the gradients of the parameters: clips them, steps and clears them."""

    def __call__(self) -> None:
        """Update with the current learning rates of the optimizer's groups."""
        ...

    def gradients(self) -> list[Tensor]:
        """Return the gradients of all parameters in as few tensors as possible, to be summed in place."""
        ...

    def discard(self) -> None:
        """Clear the gradients of a batch that is restarted."""
        ...


def build_update(model: nn.Module, optimizer: torch.optim.Optimizer, grad_clip: float) -> Update:
    """Return the fastest update for this optimizer: flat storage where it applies, otherwise torch's own.

    Flat storage needs unsharded fp32 parameters on one device, and AdamW, SGD or Muon.
    """
    parts = getattr(optimizer, "inner", (optimizer,))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    plain = all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in parameters)
    kinds = [_flat_group(part) for part in parts]
    if plain and None not in kinds and len({p.device for p in parameters}) == 1:
        groups = [
            kind(group)
            for kind, part in zip(kinds, parts, strict=True)
            for group in part.param_groups
            if kind is not None and group["params"]
        ]
        return FlatUpdate(optimizer, groups, grad_clip)
    return PlainUpdate(model, optimizer, grad_clip)


class PlainUpdate:
    """Clipping and step by torch's own functions."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, grad_clip: float) -> None:
        self.model, self.optimizer, self.grad_clip = model, optimizer, grad_clip

    def __call__(self) -> None:
        """Clip, step and clear the gradients."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.optimizer.step()
        self.discard()

    def gradients(self) -> list[Tensor]:
        """Return the gradient of every parameter that has one."""
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def discard(self) -> None:
        """Set the gradients to None."""
        self.optimizer.zero_grad(set_to_none=True)


class FlatUpdate:
    """An update over one flat tensor per group: parameters, gradients and state become views of flat storage.

    The model's parameters keep their names and shapes, the optimizer's state stays one set of tensors per
    parameter, and a loaded state is copied into the flat storage.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, groups: list[_FlatGroup], grad_clip: float) -> None:
        self.optimizer, self.groups, self.grad_clip = optimizer, groups, grad_clip
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

    @torch.no_grad()
    def apply(self) -> None:
        """Run the update with the loaded rates, on the device only, so that a CUDA graph can capture it."""
        norms = [torch.linalg.vector_norm(group.gradient) for group in self.groups]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        divisor = ((norm + CLIP_EPS) / self.grad_clip).clamp_(min=1.0)
        for group in self.groups:
            assert group.parameters[0].grad is group.first, "the gradients of a flat update were replaced"
            group.step(divisor)
            group.gradient.zero_()

    def gradients(self) -> list[Tensor]:
        """Return the flat gradient of every group."""
        return [group.gradient for group in self.groups]

    def discard(self) -> None:
        """Clear the gradients of a batch that is restarted."""
        for group in self.groups:
            group.gradient.zero_()

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
    """One parameter group: settings, flat parameters and gradient, and the state of a subclass."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.parameters: list[nn.Parameter] = self.in_storage_order(settings["params"])
        device = self.parameters[0].device
        self.values = torch.empty(sum(p.numel() for p in self.parameters), device=device)
        self.gradient = torch.zeros_like(self.values)
        # a tensor on a GPU, so that a CUDA graph reads the current rate; a number would be a constant in it
        self.lr = torch.zeros((), device=device) if device.type == "cuda" else 0.0
        views = zip(self.parameters, self.views(self.values), self.views(self.gradient), strict=True)
        for parameter, value, gradient in views:
            value.copy_(parameter.detach())
            parameter.data, parameter.grad = value, gradient
        self.first = self.parameters[0].grad
        self.state = self.build_state()

    def in_storage_order(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Return the parameters in the order of their flat storage."""
        return parameters

    def build_state(self) -> Mapping[str, list[Tensor]]:
        """Return zeroed state by torch's names, as one tensor for each parameter."""
        raise NotImplementedError

    def step(self, divisor: Tensor) -> None:
        """Update the parameters by the gradient divided by `divisor`."""
        raise NotImplementedError

    def adopt(self, state: dict[Any, Any]) -> None:
        """Copy the optimizer's state of each parameter into flat storage and replace it by views."""
        for index, parameter in enumerate(self.parameters):
            known = state.get(parameter, {})
            own = {name: views[index] for name, views in self.state.items()}
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

    def views(self, flat: Tensor) -> list[Tensor]:
        """Split a flat tensor into views with the shapes of the parameters."""
        pieces = flat.split([p.numel() for p in self.parameters])  # type: ignore[no-untyped-call]
        return [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]


class _AdamWGroup(_FlatGroup):
    """AdamW with two moments (Loshchilov & Hutter 2019, algorithm 2)."""

    def build_state(self) -> Mapping[str, list[Tensor]]:
        self.mean, self.square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.steps = torch.zeros(len(self.parameters), device=self.values.device)
        moments = {"exp_avg": self.views(self.mean), "exp_avg_sq": self.views(self.square)}
        return {"step": list(self.steps.unbind()), **moments}

    def step(self, divisor: Tensor) -> None:
        self.steps += 1
        settings = self.settings
        beta1, beta2 = settings["betas"]
        torch._fused_adamw_(
            [self.values], [self.gradient], [self.mean], [self.square], [], [self.steps[0]],
            lr=self.lr, beta1=beta1, beta2=beta2, weight_decay=settings["weight_decay"],
            eps=settings["eps"], amsgrad=False, maximize=False, grad_scale=divisor, found_inf=None,
        )  # fmt: skip


class _SgdGroup(_FlatGroup):
    """SGD with momentum; zero buffers make the first step that of torch, which starts with the gradient."""

    def build_state(self) -> Mapping[str, list[Tensor]]:
        self.buffers = [torch.zeros_like(self.values)] if self.settings["momentum"] else []
        return {"momentum_buffer": self.views(self.buffers[0])} if self.buffers else {}

    def step(self, divisor: Tensor) -> None:
        settings = self.settings
        torch._fused_sgd_(
            [self.values], [self.gradient], self.buffers,
            weight_decay=settings["weight_decay"], momentum=settings["momentum"], lr=self.lr, dampening=0.0,
            nesterov=settings["nesterov"], maximize=False, is_first_step=False, grad_scale=divisor,
            found_inf=None,
        )  # fmt: skip


class _MuonGroup(_FlatGroup):
    """Muon: matrices of one shape are next to each other and orthogonalised together.

    torch.optim.Muon launches about 22 kernels for every matrix; here there are as many for every shape. Sums
    of products in bf16 may be ordered differently.
    """

    def in_storage_order(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        shapes = list(dict.fromkeys(p.shape for p in parameters))
        return sorted(parameters, key=lambda p: shapes.index(p.shape))

    def build_state(self) -> Mapping[str, list[Tensor]]:
        self.mean = torch.zeros_like(self.values)
        return {"momentum_buffer": self.views(self.mean)}

    def step(self, divisor: Tensor) -> None:
        settings = self.settings
        momentum = settings["momentum"]
        self.gradient.div_(divisor)
        self.mean.lerp_(self.gradient, 1 - momentum)
        direction = self.gradient.lerp_(self.mean, momentum) if settings["nesterov"] else self.mean
        self.values.mul_(1 - self.lr * settings["weight_decay"])
        original = settings["adjust_lr_fn"] in (None, "original")
        for start, stop, (n, a, b) in self._stacks():
            matrices = orthogonalised(
                direction[start:stop].view(n, a, b),
                settings["ns_coefficients"],
                settings["ns_steps"],
                settings["eps"],
            )
            scale = math.sqrt(max(1, a / b)) if original else 0.2 * math.sqrt(max(a, b))
            self.values[start:stop].view(n, a, b).sub_(matrices.float() * (self.lr * scale))

    def _stacks(self) -> Iterator[tuple[int, int, tuple[int, int, int]]]:
        """Yield the range in flat storage and the shape (n, a, b) of the matrices of each shape (a, b)."""
        start, shapes = 0, [tuple(p.shape) for p in self.parameters]
        for a, b in dict.fromkeys(shapes):
            n = shapes.count((a, b))
            yield start, start + n * a * b, (n, a, b)
            start += n * a * b


def _flat_group(optimizer: torch.optim.Optimizer) -> type[_FlatGroup] | None:
    """Return the flat group of an optimizer; None if there is none for its kind or settings."""
    settings = optimizer.defaults
    if isinstance(optimizer, torch.optim.AdamW) and not settings["amsgrad"]:
        return _AdamWGroup
    if isinstance(optimizer, torch.optim.SGD) and not settings["dampening"]:
        return _SgdGroup
    return _MuonGroup if isinstance(optimizer, torch.optim.Muon) else None
