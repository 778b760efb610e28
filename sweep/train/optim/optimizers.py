"""Registry of optimizers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sweep.config import RunOptimizer
from sweep.train.optim.adamw import build_adamw
from sweep.train.optim.muon import build_muon
from sweep.train.optim.sgd import build_sgd

OPTIMIZERS: dict[str, Callable[[nn.Module, RunOptimizer], torch.optim.Optimizer]] = {
    "adamw": build_adamw,
    "muon": build_muon,
    "sgd": build_sgd,
}


def build_optimizer(model: nn.Module, config: RunOptimizer) -> torch.optim.Optimizer:
    """Build the configured optimizer over all parameters of `model`, which must be on its device."""
    return OPTIMIZERS[config.name](model, config)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to `lr` times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
