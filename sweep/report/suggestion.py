"""Suggested runs of a sweep, and the answer that is expected after them.

Legend: N parameters, D tokens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sweep.fit.design.propose import Purpose
from sweep.fit.laws.base import Interval
from sweep.records import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class SuggestedRun:
    """One run to add."""

    run_key: str
    name: str
    purpose: Purpose
    flops_budget: float
    d_model: int
    n_layers: int
    n_params: int
    n_tokens: int
    seed: int
    flops: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """One quantity of the answer at the target, with its interval now and after the suggested runs."""

    estimate: float
    interval: Interval
    expected_interval: Interval

    @property
    def factor(self) -> float:
        """The upper end of the present interval over the lower one."""
        return self.interval[1] / self.interval[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """The runs to add to a sweep within an allowance."""

    arm: str | None
    target: float
    max_budget: float
    allowance: float  # FLOPs
    confidence: float
    n_params_opt: Outlook | None  # None where the fit has no answer at the target
    loss_opt: Outlook | None
    refusal: str | None  # why there is no answer
    unbracketed: tuple[str, ...]  # budgets without a valid minimum, with the reason
    unrepaired: tuple[str, ...]  # of these, those that no run of the allowance can bracket
    n_unfinished: int  # planned runs without a result, which the suggestion does not count
    runs: tuple[SuggestedRun, ...]  # in the order of their use
    plans: tuple[Plan, ...]  # one for each seed

    @property
    def flops(self) -> int:
        """The FLOPs of all runs."""
        return sum(run.flops for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Return the suggestion as plain JSON types, without the plans."""
        document = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "plans"}
        for name in ("n_params_opt", "loss_opt"):
            document[name] = None if document[name] is None else dataclasses.asdict(document[name])
        return {**document, "runs": [dataclasses.asdict(run) for run in self.runs], "flops": self.flops}
