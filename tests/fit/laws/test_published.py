"""The catalogue of published laws against its papers, and predictions by name."""

import math

import numpy as np
import pytest

from sweep.errors import InputError
from sweep.fit import Question, predict, published_fit
from sweep.fit.fit import Fit
from sweep.fit.laws.catalogue import CATALOGUE, published, published_surface
from sweep.fit.laws.published import CatalogueLaw, catalogue_law


def law(name) -> CatalogueLaw:
    found = catalogue_law(name)
    assert isinstance(found, CatalogueLaw)
    return found


@pytest.mark.parametrize(
    ("name", "flops", "n_params", "n_tokens", "tolerance"),
    [
        ("hoffmann_2022_approach_1", 5.76e23, 67e9, 1.5e12, 0.05),  # their table 3
        ("hoffmann_2022_approach_1", 1.21e20, 1e9, 20.2e9, 0.05),
        ("hoffmann_2022_approach_2", 6.88e23, 67e9, 1.7e12, 0.05),  # table A3
        ("hoffmann_2022_approach_3", 1.62e20, 1e9, 27.1e9, 0.05),
        ("kaplan_2020", 8.64e19, 1.3e9, 2e10, 1e-9),  # one PF-day, their table 6
        ("deepseek_2024", 3e20, 0.1715 * 3e20**0.5243 / 6, 5.8316 * 3e20**0.4757, 1e-9),
        ("minicpm_2024", 4.1e21, 1.89e9, 3.62e11, 0.01),  # D/N = 192 on average
    ],
)
def test_optima_are_those_of_the_papers(name, flops, n_params, n_tokens, tolerance):
    found = law(name)
    assert found.n_params_opt(flops) == pytest.approx(n_params, rel=tolerance)
    assert found.n_tokens_opt(flops) == pytest.approx(n_tokens, rel=tolerance)


def test_minicpm_trains_near_192_tokens_a_parameter():
    assert law("minicpm_2024").estimate("tokens_per_param_opt", 4.1e21) == pytest.approx(192, rel=0.01)


def test_full_precision_moves_the_ratio_that_rounding_hides():
    """Two-digit exponents give 92.6 tokens a parameter at Gopher's budget, the source 58.9."""
    assert law("hoffmann_2022_approach_3").estimate("tokens_per_param_opt", 5.76e23) == pytest.approx(
        58.9, abs=0.05
    )
    assert law("besiroglu_2024").estimate("tokens_per_param_opt", 5.76e23) == pytest.approx(17.921, abs=1e-3)


def test_kaplans_loss_is_in_pf_days():
    assert law("kaplan_2020").loss_opt(8.64e19) == pytest.approx((3.1e8) ** 0.05)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_law_states_source_convention_range_and_rounding(name):
    entry = published(name)
    assert "arXiv:" in entry.source
    assert entry.convention
    assert 0 < entry.flops_range[0] < entry.flops_range[1]
    fitted = published_fit(name)
    assert Fit.from_json(fitted.to_json()).to_json() == fitted.to_json()
    (answer,) = predict(fitted, [1e21], Question(inference_tokens=1e12))
    entry_of_name = answer.to_json()["methods"][name]
    assert entry.range_source
    assert entry_of_name["notes"][0] == entry.source
    assert entry.rounded == any("rounded" in note for note in entry_of_name["notes"][3:4])
    assert all(math.isfinite(entry_of_name[key]) for key in ("n_params_opt", "n_tokens_opt"))
    assert entry_of_name["ci"] == {}
    spent = 6 * entry_of_name["n_params_opt"] * entry_of_name["n_tokens_opt"]
    assert spent == pytest.approx(1e21, rel=0.9 if "kaplan" in name else 0.01)
    a, b = law(name).exponents
    assert a + b == pytest.approx(1, abs=2e-3)  # Porian et al. fit the two apart


def test_porians_steps_are_those_of_their_first_figure():
    assert law("porian_2024_as_kaplan").exponents[0] == pytest.approx(0.835, abs=5e-4)
    assert law("porian_2024").exponents[0] == pytest.approx(0.497, abs=5e-4)
    ratios = [law("porian_2024").estimate("tokens_per_param_opt", c) for c in (1.25e16, 2.56e19)]
    assert ratios == pytest.approx([14.8, 15.4], rel=0.03)  # their coefficient of the ratio: 11.9 C^.006


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InputError, match="not the name of a published law: choose from kaplan_2020"):
        published_fit("chinchila")
    with pytest.raises(InputError, match="is not a loss surface"):
        published_surface("llama_3_2024")


def test_a_law_without_a_loss_predicts_none():
    (answer,) = predict(published_fit("llama_3_2024"), [1e22])
    document = answer.to_json()
    assert "loss_opt" not in document["methods"]["llama_3_2024"]
    assert document["beyond_data"] == pytest.approx(1)
    assert np.isnan(law("llama_3_2024").loss(1e9, 1e10))
