"""Coordinate check: flat for mup, growing for the standard parametrisation, for every optimizer."""

import pytest

from scripts.benchmarks.coordinates import coordinate_checks, slopes
from sweep.config.compose import compose_experiment

FAMILIES = {
    "tied rope": (),
    "biased gpt": (
        "model.norm=layer",
        "model.positions=learned",
        "model.activation=gelu",
        "model.bias=true",
        "model.tied=false",
        "model.qk_norm=false",
    ),
}
MUP = ("mup_base_width=32",)


def found(optimizer, lr, parametrization, family, widths):
    experiment = compose_experiment(
        [
            "experiment=smoke",
            f"optimizer={optimizer}",
            f"optimizer.lr={lr}",
            "optimizer.grad_clip=1e6",
            "model.seq_len=8",
            *parametrization,
            *FAMILIES[family],
        ]
    )
    return slopes(coordinate_checks(experiment, widths, vocab_size=64, n_steps=4, seeds=(0, 1)))


WIDTHS = (32, 64, 128, 256, 512)


@pytest.mark.parametrize(
    ("optimizer", "lr", "widths", "family"),
    [
        ("adamw", 0.01, (32, 64, 128, 256), "biased gpt"),
        pytest.param("adamw", 0.01, WIDTHS, "tied rope", marks=pytest.mark.ci),
        pytest.param("sgd", 0.1, WIDTHS, "tied rope", marks=pytest.mark.long),
        pytest.param("sgd", 0.1, WIDTHS, "biased gpt", marks=pytest.mark.long),
        pytest.param("muon", 0.01, (32, 64, 128), "tied rope", marks=pytest.mark.ci),
        pytest.param("muon", 0.01, (32, 64, 128), "biased gpt", marks=pytest.mark.ci),
    ],
)
def test_mup_is_flat_and_standard_grows(optimizer, lr, widths, family):
    """Negative slopes are allowed: the change passed on by initial weights shrinks as 1/sqrt(width)."""
    flat = found(optimizer, lr, MUP, family, widths)
    grown = found(optimizer, lr, (), family, widths)
    assert max(flat.values()) < 0.15, flat
    assert min(flat.values()) > -0.5, flat
    assert max(grown.values()) > 0.3, grown


@pytest.mark.ci
def test_muon_with_its_original_scaling_needs_no_mup_for_the_blocks():
    """Its updates have the same spectral norm at every width; AdamW's tables still need mup."""
    flat = found("muon", 0.02, (*MUP, "optimizer.muon_scaling=original"), "tied rope", (32, 64, 128))
    assert max(flat.values()) < 0.15, flat
