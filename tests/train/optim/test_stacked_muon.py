"""Muon over stacked matrices against torch's, matrix by matrix."""

import pytest
import torch

from sweep.train.optim.muon import StackedMuon

SHAPES = [(24, 8), (8, 8), (8, 24), (24, 8), (8, 8), (24, 8)]


def trained(kind, scaling, nesterov):
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    settings = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov, "adjust_lr_fn": scaling}
    optimizer = kind(parameters, weight_decay=0.1, ns_steps=5, **settings)
    for _ in range(4):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scaling", ["original", "match_rms_adamw"])
def test_stacked_matrices_are_updated_as_single_ones(scaling, nesterov):
    plain, reference = trained(torch.optim.Muon, scaling, nesterov)
    stacked, optimizer = trained(StackedMuon, scaling, nesterov)
    for ours, theirs in zip(stacked, plain, strict=True):
        assert torch.allclose(ours, theirs, atol=5e-3)  # the products are bf16
        own, other = optimizer.state[ours], reference.state[theirs]
        assert own.keys() == other.keys() == {"momentum_buffer"}
        assert torch.equal(own["momentum_buffer"], other["momentum_buffer"])
