"""Backtest: fit without the largest budgets and compare the predictions with their runs.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.base import Law
from sweep.fit.laws.encoding import fields_to_plain
from sweep.fit.methods.parabola import BudgetStatus, fit_budget
from sweep.fit.refusals import Refusal, RefusedError
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]
FitFunction = Callable[[Observations, FitConfig], Law]

MIN_BUDGETS, TWO_FROM = 4, 5  # one budget is held out from four budgets on, two from five on
N_BANDS = 8  # of ln C, for tables without budgets
MIN_PER_BAND = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetError:
    """The errors at one budget that was held out: prediction over truth, less one.

    The truth is the minimum of the budget's own parabola; where it has no valid minimum, and for bands of C,
    the loss of the best run.
    """

    flops: float
    flops_budget: float | None = None  # as planned; None for bands of C
    status: BudgetStatus | None = None  # of the budget's own minimum; None for bands of C
    n_params_opt: float | None = None  # predicted; None for bands of C
    loss_opt: float
    true_n_params_opt: float | None = None
    true_loss_opt: float | None = None
    loss_of_best_run: float | None = None
    n_params_opt_error: float | None = None
    loss_opt_error: float

    def to_json(self) -> dict[str, Any]:
        """Return its entry in fit.json, without the values that do not apply."""
        return {name: value for name, value in fields_to_plain(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodBacktest:
    """The errors of one method on the runs and the budgets held out."""

    loss_rms_error: float | None  # relative, over the runs; None if the law gives no L(N, D)
    loss_mean_error: float | None
    budgets: tuple[BudgetError, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backtest:
    """The entry `backtest` of fit.json."""

    left_out: tuple[float, ...]  # FLOPs of the budgets held out
    banded: bool  # True if the budgets are bands of C, for a table without budgets
    n_fitted: int
    n_left_out: int
    largest_fitted_flops: float
    methods: Mapping[str, MethodBacktest | Refusal]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Levels:
    """Budgets, or bands of C."""

    flops: FloatArray  # (m,) ascending
    of_point: IntArray  # (n,) index into `flops`, -1 for a point outside all of them
    banded: bool


def backtest(
    observations: Observations, config: FitConfig, methods: Mapping[str, FitFunction]
) -> Backtest | Refusal:
    """Hold out the largest budgets, fit the rest by `methods` without resampling, and return their errors.

    Points outside all budgets but of as much C are held out too, so that every prediction is an
    extrapolation. Tables without budgets are divided into bands of equal width in ln C.
    """
    levels = _levels(observations)
    n_levels = len(levels.flops)
    if n_levels < MIN_BUDGETS:
        return Refusal(
            kind="too_few_budgets_left",
            reason=f"the points have {n_levels} budgets, and a backtest, which holds out the largest, needs "
            f"{MIN_BUDGETS}: add a budget",
        )
    n_held = 2 if n_levels >= TWO_FROM else 1
    held = levels.of_point >= n_levels - n_held
    held |= (levels.of_point < 0) & (observations.flops >= observations.flops[held].min())
    training, quick = select(observations, ~held), dataclasses.replace(config, n_bootstrap=0)
    return Backtest(
        left_out=tuple(levels.flops[-n_held:].tolist()),
        banded=levels.banded,
        n_fitted=int((~held).sum()),
        n_left_out=int(held.sum()),
        largest_fitted_flops=float(training.flops.max()),
        methods={
            name: _method_backtest(method, training, quick, observations, held, levels)
            for name, method in methods.items()
        },
    )


def select(observations: Observations, rows: Rows) -> Observations:
    """Return the observations at `rows`; budgets without a point are dropped, the FLOP constraint stays."""
    kept = np.unique(observations.budget[rows])
    kept = kept[kept >= 0]
    renumbered = np.full(len(observations.budgets) + 1, -1)
    renumbered[kept] = np.arange(len(kept))
    clusters, cluster = np.unique(observations.cluster[rows], return_inverse=True)
    position = {int(old): new for new, old in enumerate(clusters)}
    curves = [curve for curve in observations.curves if curve.cluster in position]
    return dataclasses.replace(
        observations,
        n_params=observations.n_params[rows],
        n_tokens=observations.n_tokens[rows],
        flops=observations.flops[rows],
        loss=observations.loss[rows],
        n_params_non_embedding=_at(observations.n_params_non_embedding, rows),
        flops_chinchilla=_at(observations.flops_chinchilla, rows),
        n_tokens_unique=_at(observations.n_tokens_unique, rows),
        budget=renumbered[observations.budget[rows]],
        budgets=observations.budgets[kept],
        cluster=cluster,
        curves=tuple(dataclasses.replace(curve, cluster=position[curve.cluster]) for curve in curves),
    )


def _at(values: FloatArray | None, rows: Rows) -> FloatArray | None:
    return None if values is None else values[rows]


def _levels(observations: Observations) -> _Levels:
    """Return the budgets, or bands of C for a table that has none."""
    if len(observations.budgets):
        return _Levels(flops=observations.budgets, of_point=observations.budget, banded=False)
    log_c = np.log(observations.flops)
    edges = np.linspace(log_c.min(), log_c.max(), N_BANDS + 1)
    band = np.clip(np.searchsorted(edges, log_c, side="right") - 1, 0, N_BANDS - 1)
    counts = np.bincount(band, minlength=N_BANDS)
    usable = np.flatnonzero(counts >= MIN_PER_BAND)
    of_point = np.full(len(band), -1, dtype=np.int64)
    for index, number in enumerate(usable):
        of_point[band == number] = index
    of_point[band > (usable[-1] if len(usable) else -1)] = len(usable) - 1
    return _Levels(flops=np.exp(0.5 * (edges[usable] + edges[usable + 1])), of_point=of_point, banded=True)


def _method_backtest(
    method: FitFunction,
    training: Observations,
    config: FitConfig,
    observations: Observations,
    held: Rows,
    levels: _Levels,
) -> MethodBacktest | Refusal:
    """Fit one method to the training points and return its errors on the points held out."""
    try:
        law = method(training, config)
    except RefusedError as refused:
        return refused.refusal
    test = select(observations, held)
    predicted = law.predicted_losses(test)
    errors = None if predicted is None else predicted / test.loss - 1.0
    held_levels = np.unique(levels.of_point[held & (levels.of_point >= 0)]).tolist()
    error_at = _band_error if levels.banded else _optimum_error
    return MethodBacktest(
        loss_rms_error=None if errors is None else math.sqrt(float((errors**2).mean())),
        loss_mean_error=None if errors is None else float(errors.mean()),
        budgets=tuple(error_at(law, observations, levels, index) for index in held_levels),
    )


def _band_error(law: Law, observations: Observations, levels: _Levels, index: int) -> BudgetError:
    """Compare the predicted loss of the optimum with the best run of a band, at that run's own C."""
    rows = np.flatnonzero(levels.of_point == index)
    best = rows[int(np.argmin(observations.loss[rows]))]
    flops, loss = float(observations.flops[best]), float(observations.loss[best])
    predicted = law.loss_opt(flops)
    return BudgetError(
        flops=flops, loss_of_best_run=loss, loss_opt=predicted, loss_opt_error=predicted / loss - 1.0
    )


def _optimum_error(law: Law, observations: Observations, levels: _Levels, index: int) -> BudgetError:
    """Compare the predicted optimum of a budget with the minimum of its own parabola."""
    truth = fit_budget(observations, index)
    n_params, loss = law.n_params_opt(truth.flops), law.loss_opt(truth.flops)
    found = BudgetError(
        flops=truth.flops,
        flops_budget=float(levels.flops[index]),
        status=truth.status,
        n_params_opt=n_params,
        loss_opt=loss,
        loss_opt_error=math.nan,
    )
    if truth.n_params_opt is None or truth.loss_opt is None:
        best = float(observations.loss[observations.budget == index].min())
        return dataclasses.replace(found, loss_of_best_run=best, loss_opt_error=loss / best - 1.0)
    return dataclasses.replace(
        found,
        true_n_params_opt=truth.n_params_opt,
        true_loss_opt=truth.loss_opt,
        n_params_opt_error=n_params / truth.n_params_opt - 1.0,
        loss_opt_error=loss / truth.loss_opt - 1.0,
    )
