"""The answer of a fit: N_opt, D_opt and L_opt at a budget from all methods, with one interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweep.fit.laws.base import Law


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnswerLaw(Law):
    """The weighted mean of several laws, with intervals for noise and form error."""

    weights: Mapping[str, Mapping[str, float]]
    form_sd: Mapping[str, float]
    flops_max: float
    max_reach: float
