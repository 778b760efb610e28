"""Fused stochastic gradient descent with momentum."""

from __future__ import annotations

import torch
from torch import nn

from sweep.config import RunOptimizer
from sweep.train.optim.groups import Kind, Setting, grouped


def sgd_settings(config: RunOptimizer) -> dict[Kind, Setting]:
    """Return SGD's settings by kind of parameter; m is `width_ratio`, 1 in the standard parametrisation.

    Under mup the rate of hidden matrices is constant, and that of parameters with one growing side is
    proportional to width. Tables are stored 1/sqrt(width) as large, which divides their rate by width again.

    Source: Yang et al. 2022 (Tensor Programs V, arXiv:2203.03466), table 8.
    """
    decay = config.weight_decay
    return {
        "hidden": Setting(weight_decay=decay),
        "table": Setting(weight_decay=decay),
        "vector": Setting(lr_scale=config.width_ratio),
    }


def build_sgd(model: nn.Module, config: RunOptimizer) -> torch.optim.Optimizer:
    """Build SGD with (Nesterov) momentum; the buffer sums gradients (Sutskever et al. 2013).

    Weight decay is an L2 penalty added to the gradient of matrices and tables, not of vectors.
    """
    return torch.optim.SGD(
        grouped(model, sgd_settings(config), config.lr_peak),
        lr=config.lr_peak,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=True,
    )
