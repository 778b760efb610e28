"""What a parametrisation makes of a model: the multipliers and the ratio of widths that a run carries.

Legend: m = d_model / base width. Both parametrisations draw the same initial weights (`train.models.gpt`), of
variance 1/fan_in unless `standard` is told another, and are one at m = 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sweep.config import ExperimentConfig, ModelConfig
from sweep.errors import InputError
from sweep.plan.shapes import shape_of_width


@dataclass(frozen=True, kw_only=True, slots=True)
class Parametrized:
    """A model with its multipliers, and the ratio its optimizer scales learning rates by."""

    model: ModelConfig
    width_ratio: float


def parametrized(experiment: ExperimentConfig, model: ModelConfig) -> Parametrized:
    """`model` under the experiment's parametrisation: as it is, or with the multipliers of mup.

    mup keeps the size of every activation's change in a step the same at all widths. Logits are multiplied by
    1/sqrt(m): table 8 has 1/m for a head of standard deviation 1, and ours is stored 1/sqrt(width) as large,
    in both tied and untied models. Scores of attention are q·k·sqrt(base head_dim)/head_dim, as queries and
    keys are correlated once trained (definition 4.1); heads of a fixed size leave them as they are. The
    learning rates are in `sweep.train.optim`, each optimizer's beside it. Depth is not corrected for.

    Source: Yang et al. 2022 (Tensor Programs V, arXiv:2203.03466), table 8 and definition 4.1. Raises
    InputError when the base width is none of the family.
    """
    if experiment.mup_base_width is None:
        return Parametrized(model=model, width_ratio=1.0)
    try:
        base = shape_of_width(experiment.mup_base_width, experiment.model, model.vocab_size)
    except InputError as error:
        raise InputError(f"mup_base_width={experiment.mup_base_width} is no width here: {error}") from None
    ratio = model.d_model / base.d_model
    scaled = replace(model, output_scale=ratio**-0.5, attention_scale=(base.head_dim / model.head_dim) ** 0.5)
    return Parametrized(model=scaled, width_ratio=ratio)
