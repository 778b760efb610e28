"""Multipliers and the width ratio of a model under mup or the standard parametrization.

Legend: m = d_model / base width. Both parametrizations draw the same initial weights (`train.models.gpt`), of
variance 1/fan_in unless model.init_std is set under the standard one, and they are equal at m = 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sweep.config import ExperimentConfig, ModelConfig
from sweep.errors import InputError
from sweep.plan.shapes import shape_of_width


@dataclass(frozen=True, kw_only=True, slots=True)
class Parametrized:
    """A model with its multipliers, and the width ratio that scales its learning rates."""

    model: ModelConfig
    width_ratio: float


def parametrized(experiment: ExperimentConfig, model: ModelConfig) -> Parametrized:
    """Return `model` under the experiment's parametrization: unchanged, or with the multipliers of mup.

    mup keeps the size of every activation's change in a step the same at all widths. Logits are multiplied by
    1/sqrt(m): table 8 has 1/m for a head of standard deviation 1, and our heads, tied and untied, are smaller
    by 1/sqrt(width). Attention scores are q·k·sqrt(base head_dim)/head_dim, because queries and keys are
    correlated after training (definition 4.1); heads of a fixed size do not change them. The scaling of
    learning rates is in `sweep.train.optim`, next to each optimizer. Depth is not corrected for.

    Source: Yang et al. 2022 (Tensor Programs V, arXiv:2203.03466), table 8 and definition 4.1.

    Raises:
        InputError: The base width is not a width of the family.
    """
    if experiment.mup_base_width is None:
        return Parametrized(model=model, width_ratio=1.0)
    try:
        base = shape_of_width(experiment.mup_base_width, experiment.model, model.vocab_size)
    except InputError as error:
        raise InputError(
            f"mup_base_width={experiment.mup_base_width} is not a width of this family: {error}"
        ) from None
    ratio = model.d_model / base.d_model
    scaled = replace(model, output_scale=ratio**-0.5, attention_scale=(base.head_dim / model.head_dim) ** 0.5)
    return Parametrized(model=scaled, width_ratio=ratio)
