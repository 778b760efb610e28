"""How a method says that it cannot answer: a reason and what would help, never a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RefusalKind = Literal[
    "no_points",
    "mixed_data",
    "mixed_schedules",
    "duplicated_run_keys",
    "duplicated_rows",
    "units",
    "mixed_counting",
    "no_budgets",
    "too_few_budgets",
    "too_few_points",
    "collinear",
    "no_dependence",
    "initial_guess",
    "not_converged",
    "exponent_at_bound",
    "degenerate_resamples",
    "no_curves",
    "one_batch_size",
    "no_repetition",
    "too_few_budgets_left",
    "extrapolation",
    "no_surface",
    "no_column",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a method gives no law for these points."""

    kind: RefusalKind
    reason: str  # one sentence: why, and what would help

    def to_json(self) -> dict[str, str]:
        """The form it takes in fit.json."""
        return {"refused": self.reason, "kind": self.kind}


class RefusedError(Exception):
    """Raised inside a method; `sweep.fit.fit` turns it into that method's Refusal."""

    def __init__(self, kind: RefusalKind, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(kind=kind, reason=reason)
