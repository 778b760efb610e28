"""Muon for the matrices of the blocks, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from sweep.config import RunOptimizer
from sweep.train.optim.adamw import adamw, adamw_settings
from sweep.train.optim.groups import Kind, Setting, grouped


class CombinedOptimizer(torch.optim.Optimizer):
    """Several optimizers over disjoint parameters combined into one, with shared groups and state."""

    def __init__(self, inner: Sequence[torch.optim.Optimizer]) -> None:
        self.inner = tuple(inner)
        super().__init__([group for optimizer in inner for group in optimizer.param_groups], {})
        self._share()

    def _share(self) -> None:
        start = 0
        for optimizer in self.inner:
            stop = start + len(optimizer.param_groups)
            optimizer.param_groups, optimizer.state = self.param_groups[start:stop], self.state
            start = stop

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Step each optimizer; `closure` is evaluated once, before the first."""
        loss = None if closure is None else closure()
        for optimizer in self.inner:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state returned by `state_dict`."""
        super().load_state_dict(state_dict)
        self._share()


def orthogonalised(
    matrices: Tensor, coefficients: tuple[float, float, float], n_steps: int, eps: float
) -> Tensor:
    """Return nearly orthogonal matrices with the singular vectors of `matrices`, shape (n, a, b), in bf16.

    Quintic Newton-Schulz iterations as in torch.optim.Muon (Jordan et al. 2024), over a batch.
    """
    linear, cubic, quintic = coefficients
    x = matrices.bfloat16()
    is_tall = x.size(1) > x.size(2)
    x = x.mT if is_tall else x
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(n_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x.mT if is_tall else x


def muon_setting(config: RunOptimizer) -> Setting:
    """Return Muon's settings of hidden matrices; m is `width_ratio`, 1 in the standard parametrisation.

    An update is lr·s·O with O nearly orthogonal, a x b. With `original`, s = sqrt(max(1, a/b)) (Jordan et al.
    2024): its spectral norm is lr·sqrt(a/b) for tall matrices and does not change with the width, as
    feature learning requires (Yang, Simon & Bernstein 2023, arXiv:2310.17813, condition 1), so mup needs no
    scaling. With `match_rms_adamw`, s = 0.2·sqrt(max(a, b)) (Liu et al. 2025, Moonlight, arXiv:2502.16982,
    section 2.2): its root mean square is 0.2·lr, like AdamW's, so that one learning rate suits both, and mup
    divides by sqrt(m). Queries, keys and values are one matrix and are orthogonalised together.
    """
    m = config.width_ratio if config.muon_scaling == "match_rms_adamw" else 1.0
    return Setting(lr_scale=m**-0.5, weight_decay=config.weight_decay * m**0.5)


def build_muon(model: nn.Module, config: RunOptimizer) -> torch.optim.Optimizer:
    """Build Muon on the matrices of the blocks, and AdamW on embedding, positions, head, gains and biases.

    The momentum is an exponential mean of gradients, orthogonalised by `ns_steps` quintic Newton-Schulz
    iterations in bf16, as in torch's implementation. Decay is decoupled, as in AdamW.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    hidden = torch.optim.Muon(
        grouped(model, {"hidden": muon_setting(config)}, config.lr_peak),
        lr=config.lr_peak,
        momentum=config.momentum,
        nesterov=config.nesterov,
        ns_steps=config.ns_steps,
        adjust_lr_fn=config.muon_scaling,
    )
    others: dict[Kind, Setting] = {
        kind: setting for kind, setting in adamw_settings(config).items() if kind != "hidden"
    }
    return CombinedOptimizer([hidden, adamw(model, config, others)])
