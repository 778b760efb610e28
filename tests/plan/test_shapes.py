"""Shapes from a width or a target, for the packaged families."""

from dataclasses import replace
from typing import get_args

import pytest
import yaml

from sweep import flops
from sweep.config import ArchitectureConfig, to_dict
from sweep.config.compose import packaged_configs
from sweep.config.values import MLP_MATRICES, Activation
from sweep.errors import InputError
from sweep.plan.shapes import nearest_shape, shape_of_width, width_step
from tests.configs import composed


def family(name, *overrides):
    return composed("experiment=smoke", f"model={name}", *overrides).model


def test_gpt2_at_768_is_the_smallest_gpt2():
    """124,439,808 parameters are in its released weights."""
    model = shape_of_width(768, family("gpt2"), 50257)
    assert (model.n_layers, model.n_heads, model.n_kv_heads, model.d_ff) == (12, 12, 12, 3072)
    assert flops.n_params(model).total == 124_439_808


def test_llama_shares_keys_and_rounds_its_mlp():
    model = shape_of_width(512, family("llama"), 4096)
    assert (model.n_heads, model.n_kv_heads, model.d_kv, model.d_ff) == (8, 2, 128, 1344)  # 1365.3 / 64
    assert shape_of_width(512, family("llama", "model.n_kv_heads=null"), 4096).n_kv_heads == 8


@pytest.mark.parametrize("name", ["tiny", "gpt", "gpt2", "llama"])
@pytest.mark.parametrize("target", [3e5, 1e7, 4e8])
def test_every_width_found_for_a_target_is_a_possible_shape(name, target):
    architecture = family(name)
    found = nearest_shape(lambda m: flops.n_params(m).total, target, architecture, 1024)
    assert found.d_model % width_step(architecture) == 0
    for neighbour in (found.d_model - width_step(architecture), found.d_model + width_step(architecture)):
        if neighbour > 0:
            other = flops.n_params(shape_of_width(neighbour, architecture, 1024)).total / target
            here = flops.n_params(found).total / target
            assert max(here, 1 / here) <= max(other, 1 / other)


def test_impossible_families_are_refused_in_a_sentence():
    with pytest.raises(InputError, match="n_kv_heads=2 does not divide n_heads=3: choose"):
        shape_of_width(192, family("llama"), 256)
    with pytest.raises(InputError, match=r"d_model=8 does not .* model.head_dim=64: .* such as 64 or 128"):
        shape_of_width(8, family("gpt"), 256)
    with pytest.raises(InputError, match="is odd: rotary positions need an even head size"):
        shape_of_width(192, replace(family("gpt"), head_dim=3), 256)
    with pytest.raises(InputError, match=r"model.norm='batch' is not valid: it should be 'rms' or 'layer'"):
        family("gpt", "model.norm=batch")


def test_every_activation_has_its_number_of_matrices():
    assert set(MLP_MATRICES) == set(get_args(Activation))


@pytest.mark.parametrize("name", ["tiny", "gpt", "gpt2", "llama"])
def test_a_packaged_family_says_only_what_differs_from_the_defaults(name):
    written = yaml.safe_load((packaged_configs() / "model" / f"{name}.yaml").read_text())
    default = to_dict(ArchitectureConfig())
    assert [key for key, value in written.items() if value == default[key]] == []
