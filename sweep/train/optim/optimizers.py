"""Optimizers, built for a model from the run's config."""

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
    """The optimizer `config` names, over all parameters of `model`, which are on their device already."""
    return OPTIMIZERS[config.name](model, config)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` for the next step, in every group times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
