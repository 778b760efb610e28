"""The expected variance of the answer at a target for any set of runs.

The model is local and linear. Near its minimum the loss of a budget is ln L = l + k u^2 + noise, with u the
distance of ln N from ln N_opt; the information of a budget's runs about (l, slope, k) gives the standard
errors of its minimum, and weighted lines through all minima give the noise of ln N_opt and ln L_opt at the
target. The form error of the extrapolation is inferred as in `sweep.fit.combination`, from the backtest
errors that a design is expected to show. Both are scaled to those of the present answer. The disagreement of
the methods is that of the present answer, with a standard deviation in proportion to the reach, ln C of the
target less that of the largest budget with a minimum.

Legend: N parameters, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.answer import TARGETS, AnswerLaw
from sweep.fit.checks.backtest import MIN_FITTED
from sweep.fit.checks.backtest_errors import Target
from sweep.fit.combination import priors_for
from sweep.fit.methods.isoflop import fit_budgets
from sweep.fit.methods.parabola import CHECKED_SIZES, MIN_SIZES, BudgetFit
from sweep.fit.methods.trend import SLOPE_PRIOR
from sweep.fit.methods.windows import SMALLEST_SD, select_runs
from sweep.fit.numerics.form_error import GRID, FormError
from sweep.fit.refusals import Refusal
from sweep.fit.table.observations import Observations, select

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HALF_SPAN = math.log(4.0)  # of the sizes around a minimum, in ln N
MARGIN = 0.15  # of ln N between the expected minimum and the outermost sizes of a bracketed budget
LEAST_VARIANCE = 1e-16  # of a logarithm, where losses have no noise
SAME_SIZE = 1e-6  # of ln N
CURVATURE = 0.02  # of ln L in ln N, where no parabola is convex
SLOPES = (0.3, 0.7)  # of ln N_opt in ln C, outside of the measured minima
WEIGHTS: Mapping[Target, float] = {"n_params": 1.0, "loss": 0.5}  # of the log variances
QUANTILES = (0.2, 0.5, 0.8)  # of the form error's posterior, over which a design is averaged


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BudgetRuns:
    """The runs of one budget, present and proposed."""

    flops: float
    log_n: FloatArray  # of every run
    status: str  # of the measured minimum; "new" without a measured run

    def plus(self, log_n: FloatArray) -> BudgetRuns:
        """Return the budget with further runs."""
        return dataclasses.replace(self, log_n=np.concatenate([self.log_n, log_n]))


Design = tuple[BudgetRuns, ...]  # ascending in FLOPs


@dataclass(frozen=True, kw_only=True, slots=True)
class Variance:
    """Variance of one logarithm at the target, from noise and from form (with the methods' disagreement)."""

    noise: float
    form: FloatArray  # for each quantile of the present posterior that the true form error may lie at

    @property
    def total(self) -> float:
        """The geometric mean of the sums."""
        return math.exp(float(np.log(np.maximum(self.noise + self.form, LEAST_VARIANCE)).mean()))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LocalModel:
    """The loss around the optimum of each budget, as measured, and the noise of one run."""

    log_c: FloatArray  # of the measured minima, ascending, (m,)
    log_n: FloatArray
    curvature: tuple[float, float]  # ln k = level + slope ln C
    sd: float  # of one run's ln L
    answer: AnswerLaw | None
    known: dict[float, float] = field(default_factory=dict)  # results of `center`

    def center(self, flops: float) -> float:
        """Return the expected ln N_opt at a budget: between measured minima on the line that joins them."""
        if flops not in self.known:
            self.known[flops] = self._center(flops)
        return self.known[flops]

    def _center(self, flops: float) -> float:
        x = math.log(flops)
        if x > self.log_c[-1] and self.answer is not None:
            return math.log(self.answer.n_params_opt(flops))
        slope = 0.5
        if len(self.log_c) > 1:
            slope = float(np.clip(np.polyfit(self.log_c, self.log_n, 1)[0], *SLOPES))
        nearest = float(np.clip(x, self.log_c[0], self.log_c[-1]))
        return float(np.interp(nearest, self.log_c, self.log_n)) + slope * (x - nearest)

    def errors(self, budget: BudgetRuns) -> tuple[float, float] | None:
        """Return the variances of ln N and ln L at the minimum by noise; None if it is not bracketed."""
        u = budget.log_n - self.center(budget.flops)
        sizes = np.unique(np.round(u / SAME_SIZE))
        if len(sizes) < (MIN_SIZES if budget.status == "ok" else CHECKED_SIZES):
            return None
        if budget.status != "ok" and not (u.min() < -MARGIN and u.max() > MARGIN):
            return None
        near = u[np.abs(u) <= 1.5 * HALF_SPAN]
        if len(np.unique(np.round(near / SAME_SIZE))) >= CHECKED_SIZES:
            u = near
        design = np.vander(u, 3, increasing=True)
        covariance = np.linalg.inv(design.T @ design) * self.sd**2
        level, slope = self.curvature
        steepness = 2.0 * math.exp(level + slope * math.log(budget.flops))
        return float(covariance[1, 1]) / steepness**2, float(covariance[0, 0])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DesignModel:
    """The expected variance of the answer at a target for any design."""

    local: LocalModel
    answer: AnswerLaw
    log_target: float
    possible: Mapping[Target, FloatArray]  # form errors per e-fold, at QUANTILES of their present posterior
    scale: Mapping[Target, tuple[float, FloatArray]]  # present variances by noise and form over the model's
    disagreement: Mapping[Target, float]  # variance by disagreement of methods, per squared e-fold of reach
    known: dict[tuple[float, bytes], tuple[float, float] | None] = field(default_factory=dict)  # errors

    @classmethod
    def of(cls, local: LocalModel, answer: AnswerLaw, design: Design, target: float) -> DesignModel:
        """Return the model that gives the present answer's variances at the present design."""
        plain = cls(
            local=local,
            answer=answer,
            log_target=math.log(target),
            possible={
                name: GRID[np.searchsorted(np.cumsum(answer.form[name].weights), QUANTILES)]
                for name in TARGETS
            },
            scale=dict.fromkeys(TARGETS, (1.0, np.ones(len(QUANTILES)))),
            disagreement=dict.fromkeys(TARGETS, 0.0),
        )
        at, reach = np.array([target]), plain._reach(plain._minima(design)[0])
        scale, disagreement = {}, {}
        for name, found in plain.variances(design).items():
            noise = float(answer.noise_variance(name, at)[0])
            form = (answer.form[name].sd * float(answer.reach(at)[0])) ** 2
            scale[name] = (noise / found.noise, form / np.where(found.form > 0, found.form, 1.0))
            between = float(answer.disagreement_variance(name, at)[0])
            disagreement[name] = between / reach**2 if reach > 0 else 0.0
        return dataclasses.replace(plain, scale=scale, disagreement=disagreement)

    def variances(self, design: Design) -> dict[Target, Variance]:
        """Return the expected variances of ln N_opt and ln L_opt at the target."""
        x, squares = self._minima(design)
        reach = self._reach(x)
        result: dict[Target, Variance] = {}
        for index, name in enumerate(TARGETS):
            square = squares[:, index]
            lines = _line_variances(x, square, np.append(x, self.log_target), _prior(name))
            form = self._form(name, x, square, lines) * reach**2
            by_noise, by_form = self.scale[name]
            form = by_form * form + self.disagreement[name] * reach**2
            result[name] = Variance(noise=by_noise * float(lines[-1, -1]), form=form)
        return result

    def _minima(self, design: Design) -> tuple[FloatArray, FloatArray]:
        """Return ln C (m,) of the budgets with a minimum, and its variances by noise (m, 2)."""
        at = [(math.log(budget.flops), self._errors(budget)) for budget in design]
        valid = [(log_c, errors) for log_c, errors in at if errors is not None]
        return np.array([log_c for log_c, _ in valid]), np.array([errors for _, errors in valid])

    def _reach(self, x: FloatArray) -> float:
        """Return the e-folds from the largest of the minima `x` to the target; zero within the data."""
        return max(self.log_target - float(x[-1]), 0.0)

    def _errors(self, budget: BudgetRuns) -> tuple[float, float] | None:
        key = budget.flops, budget.log_n.tobytes()
        if key not in self.known:
            self.known[key] = self.local.errors(budget)
        return self.known[key]

    def score(self, design: Design) -> float:
        """Return the weighted log variance; lower is better."""
        found = self.variances(design)
        return sum(WEIGHTS[name] * math.log(found[name].total) for name in TARGETS)

    def _form(self, name: Target, x: FloatArray, square: FloatArray, lines: FloatArray) -> FloatArray:
        """Return the mean square of the form error per e-fold after the backtests of a design.

        One value for each of the `possible` true errors. It is that of `FormError.infer` for backtest errors
        of their expected squares, on every fourth point of GRID.
        """
        first, held = _cuts(len(x))
        reach = (x[held] - x[first - 1]) ** 2
        variance = lines[first - 1, held] + square[held]
        squared_error = variance + self.possible[name][:, None] ** 2 * reach
        spread = variance + SQUARES[:, None] * reach
        share = -0.5 / (len(x) - first)
        log_weight = (
            _log_priors(len(self.answer.laws))[name]
            + np.log(spread) @ share
            + (squared_error * share) @ (1.0 / spread).T
        )
        weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
        return np.asarray(weight @ SQUARES / weight.sum(axis=1), dtype=np.float64)


SQUARES = GRID[::4] ** 2


@cache
def _log_priors(n_methods: int) -> Mapping[Target, FloatArray]:
    """Return the logarithm of the prior weights of the form error of a mean of methods, at SQUARES."""
    every = {name: FormError.infer(prior, ()).weights for name, prior in priors_for(n_methods).items()}
    # each point stands for those up to the next one, so that an exact form keeps its share
    thinned = {name: np.add.reduceat(w, np.arange(0, len(GRID), 4)) for name, w in every.items()}
    return {name: np.log(np.maximum(weights, 1e-300)) for name, weights in thinned.items()}


@cache
def _cuts(n_budgets: int) -> tuple[IntArray, IntArray]:
    """Return the number of budgets fitted and the budget held out, for every pair of a backtest."""
    pairs = [(cut, held) for cut in range(MIN_FITTED, n_budgets) for held in range(cut, n_budgets)]
    first, held = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return first, held


def _prior(name: Target) -> float:
    """Return the precision of the prior of a slope."""
    return SLOPE_PRIOR.sd**-2 if name == "n_params" else 0.0


def _line_variances(x: FloatArray, square: FloatArray, at: FloatArray, prior: float) -> FloatArray:
    """Return the variances (m, k) at `at` (k,) of weighted lines through the first 1, ..., m of `x` (m,).

    Infinite where a line is not determined.
    """
    d, t = x - x[-1], at - x[-1]
    s0, s1, s2 = np.cumsum(np.stack([np.ones_like(d), d, d * d]) / square, axis=1)[:, :, None]
    determinant = s0 * (s2 + prior) - s1**2
    possible = determinant > 1e-9 * s0 * np.maximum(s2 + prior, 1e-300)
    variance = (s2 + prior - 2.0 * s1 * t + s0 * t**2) / np.where(possible, determinant, 1.0)
    return np.where(possible, variance, np.inf)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Situation:
    """The budgets of a sweep as measured, and the local model where there is a minimum."""

    budgets: tuple[BudgetFit, ...]
    design: Design
    local: LocalModel | None  # None without any valid minimum

    @property
    def unbracketed(self) -> tuple[BudgetFit, ...]:
        """The budgets without a valid minimum that more sizes can repair."""
        return tuple(b for b in self.budgets if b.status in ("edge", "not_convex", "too_few"))


def situation(observations: Observations, answer: AnswerLaw | Refusal | None, config: FitConfig) -> Situation:
    """Return the budgets of a sweep as measured; outliers have no part in it."""
    outliers = select_runs(observations, config.isoflop.window, drop_outliers=True).outliers
    clean = select(observations, ~outliers) if outliers.any() else observations
    selection = select_runs(clean, config.isoflop.window, drop_outliers=False)
    budgets = tuple(fit_budgets(clean, selection))
    design = tuple(
        BudgetRuns(
            flops=budget.flops_budget,
            log_n=np.sort(np.log(clean.n_params[clean.budget == budget.index])),
            status=budget.status,
        )
        for budget in budgets
    )
    law = answer if isinstance(answer, AnswerLaw) else None
    return Situation(budgets=budgets, design=design, local=_local_model(budgets, law))


def _local_model(budgets: Sequence[BudgetFit], answer: AnswerLaw | None) -> LocalModel | None:
    valid = [b for b in budgets if b.status == "ok" and b.parabola is not None]
    if not valid:
        return None
    log_c = np.log([budget.flops_budget for budget in valid])
    log_n = np.log([budget.n_params_opt or math.nan for budget in valid])
    relative = np.array([_curvature(budget) for budget in valid])
    slope, level = np.polyfit(log_c, np.log(relative), 1) if len(valid) > 2 else (0.0, 0.0)
    if not -0.3 <= slope <= 0.3:  # within noise of few budgets: curvatures change slowly with C
        slope = 0.0
    level = float(np.median(np.log(relative) - slope * log_c))
    pairs = [(p.residual_squares, p.n_points - 3) for b in valid if (p := b.parabola) is not None]
    n_dof = max(1, sum(pair[1] for pair in pairs))
    pooled = math.sqrt(sum(pair[0] for pair in pairs) / n_dof)
    noise = None if answer is None or answer.noise is None else answer.noise.sd
    return LocalModel(
        log_c=log_c,
        log_n=log_n,
        curvature=(level, float(slope)),
        sd=max(noise or pooled, SMALLEST_SD),
        answer=answer,
    )


def _curvature(budget: BudgetFit) -> float:
    assert budget.parabola is not None
    assert budget.loss_opt is not None
    return max(budget.parabola.coefficients[2] / budget.loss_opt, 1e-3 * CURVATURE)
