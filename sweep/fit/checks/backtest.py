"""Rolling backtest: fit without the largest runs, at every cut, and compare the predictions with those runs.

Legend: N parameters, D tokens, C training FLOPs, L loss; reach is ln C less that of the largest level fitted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.checks.backtest_errors import Backtest, BudgetError, Cut, Kind, MethodBacktest
from sweep.fit.laws.base import Law
from sweep.fit.methods.isoflop import find_minima
from sweep.fit.methods.parabola import BudgetFit
from sweep.fit.refusals import Refusal, RefusedError
from sweep.fit.table.observations import Observations, select

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
FitFunction = Callable[[Observations, FitConfig], Law]

MIN_FITTED = 3  # levels that every cut leaves to the fit
CUT_DRAWS = 20  # resamples for the noise of a prediction: its standard deviation to 16 %
N_BANDS = 8  # of ln C, for tables without budgets or sizes in common
MIN_PER_BAND = 3
MIN_RUNS_PER_SIZE = 2
MIN_REACH = 0.1  # e-folds between budgets, at least
MIN_ISOFLOP_SIZES = 4
MIN_STEP = 0.3  # e-folds: sizes or bands that overlap in C do not test an extrapolation in C


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Levels:
    """Budgets, sizes, or bands of C, in the order in which they are held out."""

    kind: Kind
    flops: FloatArray  # (m,)
    of_point: IntArray  # (n,) index into `flops`, -1 for a point outside all of them


def backtest(
    observations: Observations, config: FitConfig, methods: Mapping[str, FitFunction]
) -> Backtest | Refusal:
    """Fit the smallest levels at every cut and return the errors of `methods` on the larger ones.

    Levels are the budgets; in a table without IsoFLOP budgets, its sizes, and without sizes in common, bands
    of equal width in ln C. Points outside all levels but of as much C are held out too, so that every
    prediction is an extrapolation.
    """
    levels = _levels(observations)
    n_levels = len(levels.flops)
    if n_levels <= MIN_FITTED:
        return Refusal(
            kind="too_few_budgets_left",
            reason=f"the points have {n_levels} budgets, and a backtest, which holds out the largest, needs "
            f"{MIN_FITTED + 1}: add a budget",
        )
    truths = _truths(observations, config) if levels.kind == "budget" else {}
    quick = dataclasses.replace(config, n_bootstrap=min(config.n_bootstrap, CUT_DRAWS))
    return Backtest(
        kind=levels.kind,
        cuts=tuple(
            _cut(observations, quick, methods, levels, n_fitted, truths)
            for n_fitted in range(MIN_FITTED, n_levels)
        ),
    )


def _cut(
    observations: Observations,
    config: FitConfig,
    methods: Mapping[str, FitFunction],
    levels: _Levels,
    n_fitted: int,
    truths: Mapping[int, BudgetFit],
) -> Cut:
    """Fit the first `n_fitted` levels and test on the others."""
    held = levels.of_point >= n_fitted
    held |= (levels.of_point < 0) & (observations.flops >= observations.flops[held].min())
    training = select(observations, ~held)
    return Cut(
        left_out=tuple(levels.flops[n_fitted:].tolist()),
        n_fitted=int((~held).sum()),
        n_left_out=int(held.sum()),
        largest_fitted_flops=float(training.flops.max()),
        methods={
            name: _method_backtest(method, training, config, observations, levels, n_fitted, truths)
            for name, method in methods.items()
        },
    )


def _levels(observations: Observations) -> _Levels:
    """Return the budgets; sizes or bands of C for a table that has too few and is no IsoFLOP grid."""
    budgets = _Levels(kind="budget", flops=observations.budgets, of_point=observations.budget)
    if len(budgets.flops) > MIN_FITTED or _is_isoflop(observations):
        return budgets
    for other in (_size_levels(observations), _cost_levels(observations)):
        if len(other.flops) > MIN_FITTED:
            return other
    return budgets


def _is_isoflop(observations: Observations) -> bool:
    """Return True for IsoFLOP budgets: its sizes are then tested within budgets, not beyond them."""
    sizes = [
        len(np.unique(observations.n_params[observations.budget == index]))
        for index in range(len(observations.budgets))
    ]
    return observations.budgets_as_planned or min(sizes, default=0) >= MIN_ISOFLOP_SIZES


def _size_levels(observations: Observations) -> _Levels:
    """Return the sizes in ascending order, if each has runs of its own at several D."""
    sizes, of_point, counts = np.unique(observations.n_params, return_inverse=True, return_counts=True)
    if len(sizes) <= MIN_FITTED or counts.min() < MIN_RUNS_PER_SIZE:
        return _Levels(kind="size", flops=np.empty(0), of_point=np.full(len(observations), -1))
    log_c = np.bincount(of_point, weights=np.log(observations.flops)) / counts
    return _Levels(kind="size", flops=np.exp(log_c), of_point=of_point)


def _cost_levels(observations: Observations) -> _Levels:
    """Return bands of equal width in ln C."""
    log_c = np.log(observations.flops)
    edges = np.linspace(log_c.min(), log_c.max(), N_BANDS + 1)
    band = np.clip(np.searchsorted(edges, log_c, side="right") - 1, 0, N_BANDS - 1)
    counts = np.bincount(band, minlength=N_BANDS)
    usable = np.flatnonzero(counts >= MIN_PER_BAND)
    of_point = np.full(len(band), -1, dtype=np.int64)
    for index, number in enumerate(usable):
        of_point[band == number] = index
    of_point[band > (usable[-1] if len(usable) else -1)] = len(usable) - 1
    return _Levels(kind="cost", flops=np.exp(0.5 * (edges[usable] + edges[usable + 1])), of_point=of_point)


def _truths(observations: Observations, config: FitConfig) -> dict[int, BudgetFit]:
    """Return every budget's own parabola by index, fitted with all budgets in view."""
    try:
        return {budget.index: budget for budget in find_minima(observations, config.isoflop).budgets}
    except RefusedError:
        return {}


def _method_backtest(
    method: FitFunction,
    training: Observations,
    config: FitConfig,
    observations: Observations,
    levels: _Levels,
    n_fitted: int,
    truths: Mapping[int, BudgetFit],
) -> MethodBacktest | Refusal:
    """Fit one method to the training points and return its errors on the levels held out."""
    try:
        law = method(training, config)
    except RefusedError as refused:
        return refused.refusal
    test = select(observations, levels.of_point >= n_fitted)
    predicted = law.predicted_losses(test)
    errors = None if predicted is None else predicted / test.loss - 1.0
    held = range(n_fitted, len(levels.flops))
    optima = {index: truth for index, truth in truths.items() if truth.n_params_opt is not None}
    best = {index: _best_run(observations, levels, index) for index in held}
    flops = np.array([optima[i].flops if i in optima else observations.flops[best[i]] for i in held])
    origin = float(np.log(levels.flops[n_fitted - 1]))
    return MethodBacktest(
        loss_rms_error=None if errors is None else math.sqrt(float((errors**2).mean())),
        loss_mean_error=None if errors is None else float(errors.mean()),
        budgets=tuple(
            _optimum_error(at, optima[index], float(levels.flops[index]), origin)
            if index in optima
            else _best_run_error(law, at, observations, levels, index, origin)
            for index, at in zip(held, _forecasts(law, flops), strict=True)
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Forecast:
    """The optimum that a law predicts at one budget, with the variances of its logarithms by the draws."""

    flops: float
    n_params: float
    loss: float
    n_params_variance: float  # 0 without draws
    loss_variance: float


def _forecasts(law: Law, flops: FloatArray) -> list[_Forecast]:
    """Return the predictions of a law at budgets (m,)."""
    found = law.optimum(flops)
    values = np.stack([flops, found.n_params_opt, found.loss_opt, np.zeros_like(flops), np.zeros_like(flops)])
    if law.n_draws:
        drawn = law.optimum_draws(flops)
        values[3:] = np.log(drawn.n_params_opt).var(axis=0), np.log(drawn.loss_opt).var(axis=0)
    names = ("flops", "n_params", "loss", "n_params_variance", "loss_variance")
    return [_Forecast(**dict(zip(names, column, strict=True))) for column in values.T.tolist()]


def _best_run(observations: Observations, levels: _Levels, index: int) -> int:
    """Return the row of the run of lowest loss at a level."""
    rows = np.flatnonzero(levels.of_point == index)
    return int(rows[observations.loss[rows].argmin()])


def _best_run_error(
    law: Law, at: _Forecast, observations: Observations, levels: _Levels, index: int, origin: float
) -> BudgetError:
    """Compare the predicted losses of a level's runs, or the optimum's loss with that of the best run."""
    level = select(observations, levels.of_point == index)
    loss = float(level.loss.min())
    losses, reach = law.predicted_losses(level), float(np.log(level.flops).mean()) - origin
    found = BudgetError(
        flops=at.flops, loss_of_best_run=loss, loss_opt=at.loss, loss_opt_error=at.loss / loss - 1.0
    )
    if losses is None or levels.kind == "budget" or reach < MIN_STEP:
        return found
    noise = 0.0 if law.noise is None else law.noise.sd**2
    return dataclasses.replace(
        found,
        loss_opt_error=float(np.mean(losses / level.loss)) - 1.0,
        reach=reach,
        loss_variance=at.loss_variance + noise / len(level),
    )


def _optimum_error(at: _Forecast, truth: BudgetFit, flops_budget: float, origin: float) -> BudgetError:
    """Compare the predicted optimum of a budget with the minimum of its own parabola."""
    assert truth.n_params_opt is not None
    assert truth.loss_opt is not None
    return BudgetError(
        flops=truth.flops,
        flops_budget=flops_budget,
        status=truth.status,
        n_params_opt=at.n_params,
        loss_opt=at.loss,
        true_n_params_opt=truth.n_params_opt,
        true_loss_opt=truth.loss_opt,
        n_params_opt_error=at.n_params / truth.n_params_opt - 1.0,
        loss_opt_error=at.loss / truth.loss_opt - 1.0,
        reach=max(math.log(truth.flops) - origin, MIN_REACH),
        n_params_variance=at.n_params_variance + (truth.n_params_opt_se or 0.0) ** 2,
        loss_variance=at.loss_variance + (truth.loss_opt_se or 0.0) ** 2,
    )
