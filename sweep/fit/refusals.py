"""Refusals: the reason why a method gives no law, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

RefusalKind = Literal[
    "no_points",
    "mixed_data",
    "mixed_schedules",
    "mixed_arms",
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
    "no_law",
    "no_column",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """The result of a method that cannot fit the points."""

    kind: RefusalKind
    reason: str  # one sentence: what is missing, and what would help

    if not TYPE_CHECKING:  # a type checker finds the attributes that a refusal lacks by itself

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError with the reason of the refusal, as for the estimates of a law."""
            if name.startswith("_"):
                raise AttributeError(name)
            raise AttributeError(f"there is no {name}: the method is refused, because {self.reason}")

    def to_json(self) -> dict[str, str]:
        """Return its entry in fit.json."""
        return {"refused": self.reason, "kind": self.kind}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Refusal:
        """Return the inverse of `to_json`."""
        return cls(kind=document["kind"], reason=document["refused"])


class RefusedError(Exception):
    """Raised inside a fit method; `fit` turns it into the method's Refusal."""

    def __init__(self, kind: RefusalKind, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(kind=kind, reason=reason)
