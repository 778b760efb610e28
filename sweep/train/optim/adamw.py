"""Fused AdamW."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from sweep.config import RunOptimizer
from sweep.train.optim.groups import Kind, Setting, grouped


class AdamW(torch.optim.AdamW):
    """torch's AdamW without the import of torch._dynamo.

    torch wraps these methods to exclude them from compilation, and the wrappers import torch._dynamo, about
    800 modules, with the first optimizer of a process. Optimizers are never compiled here, so the unwrapped
    functions suffice. `step` still imports it, but a flat update does not call `step`.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)


def adamw_settings(config: RunOptimizer) -> dict[Kind, Setting]:
    """Return AdamW's settings by kind of parameter; m is `width_ratio`, 1 in the standard parametrisation.

    Under mup the learning rate of hidden matrices goes as 1/m and that of tables as 1/sqrt(m). The latter is
    the constant rate of table 8 for tables of standard deviation 1: here tables are stored 1/sqrt(width) as
    large, with multipliers that compensate, and for Adam such a change of units divides the rate by the same
    factor. The product of rate and decay stays that of the base width, so that the averaging time scale of
    the weights is the same at every width (Wang & Aitchison 2024, arXiv:2405.13698).

    Source: Yang et al. 2022 (Tensor Programs V, arXiv:2203.03466), table 8 and its appendix on the symmetries
    of multiplier, initialisation and learning rate.
    """
    m, decay = config.width_ratio, config.weight_decay
    return {
        "hidden": Setting(lr_scale=1 / m, weight_decay=decay * m),
        "table": Setting(lr_scale=m**-0.5, weight_decay=decay * m**0.5),
        "vector": Setting(),
    }


def build_adamw(model: nn.Module, config: RunOptimizer) -> torch.optim.Optimizer:
    """Build AdamW, decoupled weight decay on matrices and tables only (Loshchilov & Hutter 2019).

    The decay of a step is lr·weight_decay, which follows the schedule.
    """
    return adamw(model, config, adamw_settings(config))


def adamw(model: nn.Module, config: RunOptimizer, settings: dict[Kind, Setting]) -> torch.optim.Optimizer:
    """Build AdamW over the kinds of parameters in `settings`."""
    groups = grouped(model, settings, config.lr_peak)
    return AdamW(groups, lr=config.lr_peak, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
