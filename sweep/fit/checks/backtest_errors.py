"""Errors of a backtest, by cut, level and method: the entry `backtest` of fit.json.

Legend: N parameters, C training FLOPs, L loss; reach is ln C less that of the largest level fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from sweep.fit.laws.encoding import fields_to_plain, record_from_plain
from sweep.fit.methods.parabola import BudgetStatus
from sweep.fit.numerics.form_error import BacktestError
from sweep.fit.refusals import Refusal

Kind = Literal["budget", "size", "cost"]
Target = Literal["n_params", "loss"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetError:
    """The errors at one level that was held out: prediction over truth, less one.

    The truth is the minimum of the budget's own parabola; where it has no valid minimum, and for levels that
    are not budgets, the loss of the best run.
    """

    flops: float
    flops_budget: float | None = None  # as planned; None for other levels
    status: BudgetStatus | None = None  # of the budget's own minimum; None for other levels
    n_params_opt: float | None = None  # predicted; None for other levels
    loss_opt: float
    true_n_params_opt: float | None = None
    true_loss_opt: float | None = None
    loss_of_best_run: float | None = None
    n_params_opt_error: float | None = None
    loss_opt_error: float
    reach: float | None = None
    n_params_variance: float | None = None  # of ln N by noise, of prediction and truth together
    loss_variance: float | None = None  # of ln L

    def to_json(self) -> dict[str, Any]:
        """Return its entry in fit.json, without the values that do not apply."""
        return {name: value for name, value in fields_to_plain(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodBacktest:
    """The errors of one method on the runs and the levels held out at one cut."""

    loss_rms_error: float | None  # relative, over the runs; None if the law gives no L(N, D)
    loss_mean_error: float | None
    budgets: tuple[BudgetError, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """One cut: the levels held out, and the errors of every method there."""

    left_out: tuple[float, ...]  # FLOPs of the levels held out
    n_fitted: int
    n_left_out: int
    largest_fitted_flops: float
    methods: Mapping[str, MethodBacktest | Refusal]


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelErrors:
    """The errors of every method at one level held out at one cut."""

    cut: int
    reach: float
    methods: Mapping[str, Mapping[Target, BacktestError]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backtest:
    """The entry `backtest` of fit.json."""

    kind: Kind  # levels that are held out: budgets, sizes, or bands of C
    cuts: tuple[Cut, ...]  # from the smallest fit to the largest

    @property
    def reference(self) -> Cut:
        """The cut that is shown as a table: one level held out, two from five levels on."""
        held = 2 if len(self.cuts) >= 2 else 1
        return self.cuts[-held]

    @property
    def banded(self) -> bool:
        """True if the levels are not budgets."""
        return self.kind != "budget"

    @property
    def left_out(self) -> tuple[float, ...]:
        """FLOPs of the levels held out at the reference cut."""
        return self.reference.left_out

    @property
    def n_fitted(self) -> int:
        """Number of points fitted at the reference cut."""
        return self.reference.n_fitted

    @property
    def n_left_out(self) -> int:
        """Number of points held out at the reference cut."""
        return self.reference.n_left_out

    @property
    def largest_fitted_flops(self) -> float:
        """The largest C fitted at the reference cut."""
        return self.reference.largest_fitted_flops

    @property
    def methods(self) -> Mapping[str, MethodBacktest | Refusal]:
        """The errors of every method at the reference cut."""
        return self.reference.methods

    @property
    def errors(self) -> tuple[LevelErrors, ...]:
        """The errors of ln N_opt and ln L_opt at every level held out at every cut."""
        found = []
        for number, cut in enumerate(self.cuts):
            tested = {name: m for name, m in cut.methods.items() if isinstance(m, MethodBacktest)}
            for index in range(len(cut.left_out)):
                at = {name: m.budgets[index] for name, m in tested.items()}
                reach = max((entry.reach or 0.0 for entry in at.values()), default=0.0)
                found.append(
                    LevelErrors(
                        cut=number,
                        reach=reach,
                        methods={name: _log_errors(number, entry) for name, entry in at.items()},
                    )
                )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return its entry in fit.json: the reference cut, and all cuts under `cuts`."""
        return {
            **fields_to_plain(self.reference),
            "banded": self.banded,
            "kind": self.kind,
            "cuts": [fields_to_plain(cut) for cut in self.cuts],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`; entries of earlier versions have a single cut."""
        cuts = document.get("cuts", [document])
        kind: Kind = document.get("kind", "cost" if document["banded"] else "budget")
        return cls(kind=kind, cuts=tuple(record_from_plain(Cut, cut) for cut in cuts))


def _log_errors(cut: int, entry: BudgetError) -> dict[Target, BacktestError]:
    """Return the errors of logarithms at one level, where they can be compared with noise."""
    if entry.reach is None:
        return {}
    pairs: tuple[tuple[Target, float | None, float | None], ...] = (
        ("n_params", entry.n_params_opt_error, entry.n_params_variance),
        ("loss", entry.loss_opt_error, entry.loss_variance),
    )
    return {
        target: BacktestError(cut=cut, reach=entry.reach, error=math.log1p(error), variance=variance)
        for target, error, variance in pairs
        if error is not None and variance is not None
    }
