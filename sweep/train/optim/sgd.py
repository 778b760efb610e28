"""Stochastic gradient descent with momentum, fused: the classic contrast."""

from __future__ import annotations

import torch
from torch import nn

from sweep.config import RunOptimizer
from sweep.train.optim.groups import Kind, Setting, grouped


def sgd_settings(config: RunOptimizer) -> dict[Kind, Setting]:
    """What SGD does with each kind of parameter; m is `width_ratio`, 1 in the standard parametrisation.

    Under mup the rate of hidden matrices is constant and that of everything with one growing side goes as
    width. Our tables are stored 1/sqrt(width) as large, which divides their rate by width again; gains and
    biases keep it.

    Source: Yang et al. 2022 (Tensor Programs V, arXiv:2203.03466), table 8.
    """
    decay = config.weight_decay
    return {
        "hidden": Setting(weight_decay=decay),
        "table": Setting(weight_decay=decay),
        "vector": Setting(lr_scale=config.width_ratio),
    }


def build_sgd(model: nn.Module, config: RunOptimizer) -> torch.optim.Optimizer:
    """SGD with (Nesterov) momentum, whose buffer sums gradients (Sutskever et al. 2013).

    The decay is added to the gradient of matrices and tables, the classic L2 penalty, and not to gains.
    """
    return torch.optim.SGD(
        grouped(model, sgd_settings(config), config.lr_peak),
        lr=config.lr_peak,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=True,
    )
