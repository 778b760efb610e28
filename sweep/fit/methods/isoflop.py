"""Method `isoflop` (Hoffmann's Approach 2): a parabola in ln N per budget, power laws through the minima.

The parabola is fitted to a window of sizes around the minimum, the noise of each budget is estimated from its
own residuals and those of the others, and minima count by their standard errors.

Legend: N parameters, D tokens, C training FLOPs, L loss, f(N) = C / D FLOPs per token.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig, IsoflopOptions
from sweep.fit.laws.base import Interval
from sweep.fit.laws.drawn_law import named_intervals
from sweep.fit.laws.power_law import PowerLaw, power_laws
from sweep.fit.methods.bias import ParabolaBias, parabola_bias
from sweep.fit.methods.parabola import (
    CHECKED_SIZES,
    MIN_SIZES,
    BudgetFit,
    Parabola,
    fit_budget,
    parabola_factor,
)
from sweep.fit.methods.windows import PRIOR_DOF, SMALLEST_SD, RunSelection, select_runs
from sweep.fit.numerics.lack_of_fit import judged_noise
from sweep.fit.numerics.resampling import degenerate_warning, pooled_t_draws
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations, RunNoise

FloatArray = npt.NDArray[np.float64]

MIN_BUDGETS = 3
WIDE_STEP = 4.0  # ratio of the sizes around a minimum above which a warning is given
MAX_LISTED = 4  # budgets that a refusal lists one by one
CHOICE_SD_N, CHOICE_SD_LOSS = 0.03, 0.002
"""Standard deviations of ln N and ln L at a minimum by the choice of its sizes, added to those by noise."""
SCHEME = "pooled residuals, multivariate t"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class IsoflopLaw(PowerLaw):
    """Power laws through the budgets' minima."""

    budgets: tuple[BudgetFit, ...]
    residual_sd: float  # pooled standard deviation of ln L about the parabolas
    residual_dof: int
    robust: bool  # runs far from their parabola are left out
    b_direct: float | None  # exponent of D_opt from parabolas in ln D
    bias: ParabolaBias | None  # None if the points do not allow a parametric surface

    def loss_off_optimum(self, flops: float, factor: float) -> float | None:
        """Return the loss at budget `flops` with `factor` times the optimal N.

        The curvature of ln L in ln N is extrapolated by the slope of its logarithm in ln C over the budgets,
        but not beyond the largest one seen by more than that slope's sign allows; None if no budget has a
        minimum.
        """
        curved = [budget for budget in self.budgets if budget.status == "ok"]
        if not curved:
            return None
        curvature = _curvature_at(curved, math.log(flops))
        return self.loss_opt(flops) * math.exp(curvature * math.log(factor) ** 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Minima:
    """The valid minima of a sweep's budgets, arrays of shape (m,) in ascending order of C."""

    budgets: tuple[BudgetFit, ...]  # all, valid or not
    selection: RunSelection
    residual_sd: float  # pooled over budgets, of ln L about the parabolas
    residual_dof: int

    @property
    def counted(self) -> list[BudgetFit]:
        """The budgets with a valid minimum."""
        return [budget for budget in self.budgets if budget.status == "ok"]

    @property
    def log_c(self) -> FloatArray:
        """Ln C at the minima."""
        return np.log(_column(self.counted, "flops"))

    @property
    def table(self) -> FloatArray:
        """Ln N, ln D and L at the minima, (3, m)."""
        log_n, log_d = (np.log(_column(self.counted, name)) for name in ("n_params_opt", "n_tokens_opt"))
        return np.stack([log_n, log_d, _column(self.counted, "loss_opt")])

    @property
    def standard_errors(self) -> tuple[FloatArray, FloatArray]:
        """Standard errors of ln N and of ln L by noise."""
        return _column(self.counted, "n_params_opt_se"), _column(self.counted, "loss_opt_se")


@lru_cache(maxsize=32)  # shared by `isoflop`, `trend` and the backtest
def find_minima(observations: Observations, options: IsoflopOptions) -> Minima:
    """Fit each budget's parabola within its window.

    Raises:
        RefusedError: no budgets, or fewer than three valid minima.
    """
    selection = select_runs(observations, options.window, drop_outliers=options.robust)
    budgets = fit_budgets(observations, selection)
    _check_budgets(budgets)
    residual_sd, residual_dof = _pooled_residuals(budgets)
    return Minima(
        budgets=tuple(
            _with_errors(observations, budget, selection, residual_sd) if budget.status == "ok" else budget
            for budget in budgets
        ),
        selection=selection,
        residual_sd=residual_sd,
        residual_dof=residual_dof,
    )


def fit_budgets(observations: Observations, selection: RunSelection) -> list[BudgetFit]:
    """Return the parabola of each budget within its window, valid or not.

    A budget of three sizes, such as a validation's, counts if enough others have a valid minimum of more
    sizes, which check the parabola and give the noise, and if its sizes span no more than the widest of
    their windows.
    """

    def fit(index: int, min_sizes: int) -> BudgetFit:
        window, valid = selection.windows[index], selection.of_budget(observations, index)
        return fit_budget(observations, index, window, valid=valid, min_sizes=min_sizes)

    budgets = [fit(index, CHECKED_SIZES) for index in range(len(selection.windows))]
    spans = [_span(budget) for budget in budgets if budget.status == "ok"]
    if len(spans) < MIN_BUDGETS:
        return budgets
    return [
        fit(budget.index, MIN_SIZES)
        if budget.n_sizes == MIN_SIZES and _span(budget) <= max(spans)
        else budget
        for budget in budgets
    ]


def fit_isoflop(observations: Observations, config: FitConfig, *, with_bias: bool = True) -> IsoflopLaw:
    """Fit a parabola to each budget, and power laws through the valid minima.

    D at a minimum is C / f(N) with the exact C there, so b is fitted and not taken as 1 - a. Intervals come
    from draws of all parabolas, the residual variance of each shrunk towards the pooled one RSS / (n - 3
    budgets). Without `with_bias` the bias is neither estimated nor subtracted. Source: Hoffmann et al. 2022,
    section 3.2.

    Raises:
        RefusedError: no budgets, fewer than three valid minima, or most draws degenerate.
    """
    found = find_minima(observations, config.isoflop)
    log_c, weights = found.log_c, _weights(found) if config.isoflop.weighted else None
    log_center = float(log_c.mean())
    coefficients = power_laws(log_c - log_center, found.table, weights)
    draws, by_budget, n_degenerate = _draw(observations, found, log_center, weights, config)
    intervals = iter(by_budget)
    budgets = [
        dataclasses.replace(budget, ci=next(intervals)) if budget.status == "ok" else budget
        for budget in found.budgets
    ]
    windows = [found.selection.windows[budget.index] for budget in found.counted]
    bias = parabola_bias(observations, windows, log_center, config) if with_bias else None
    shift = bias.shift if bias is not None and bias.corrected else np.zeros(len(coefficients))
    residuals = RunNoise(sd=found.residual_sd, n_dof=found.residual_dof, source="residuals")
    fitted = [found.selection.windows[budget.index] for budget in budgets if budget.counts_for_noise]
    noise, doubts = judged_noise(residuals, observations.noise_within(np.logical_or.reduce(fitted)))
    if not doubts:
        noise = observations.replicate_noise or residuals
    return IsoflopLaw(
        theta=coefficients - shift,
        draws=draws - shift,
        flops_center=math.exp(log_center),
        flops_per_token=observations.flops_per_token,
        budgets=tuple(budgets),
        residual_sd=found.residual_sd,
        residual_dof=found.residual_dof,
        robust=config.isoflop.robust,
        b_direct=_direct_exponent(found.counted),
        bias=bias,
        confidence=config.confidence,
        noise=noise,
        n_degenerate=n_degenerate,
        scheme=SCHEME,
        warnings=(
            *doubts,
            *_warnings(observations, budgets),
            *degenerate_warning(n_degenerate, config.n_bootstrap),
        ),
    )


def _span(budget: BudgetFit) -> float:
    """Return the ratio of the largest to the smallest size of a budget's window."""
    assert budget.window is not None
    smallest, largest = budget.window
    return largest / smallest


def _column(budgets: list[BudgetFit], name: str) -> FloatArray:
    return np.array([getattr(budget, name) for budget in budgets], dtype=np.float64)


def _curvature_at(budgets: list[BudgetFit], log_c: float) -> float:
    """Return half the second derivative of ln L in ln N at budget exp(log_c).

    The curvatures of the budgets follow a power law in C, by least squares, from two budgets on.
    """
    curvatures = np.array([budget.parabola.coefficients[2] for budget in budgets if budget.parabola])
    logs = np.log(curvatures / _column(budgets, "loss_opt"))
    x = np.log(_column(budgets, "flops"))
    slope, level = np.polyfit(x, logs, 1) if len(x) > 1 else (0.0, logs[0])
    return math.exp(level + slope * log_c)


def _weights(found: Minima) -> tuple[FloatArray, FloatArray]:
    """Return the weights of the minima in the laws of N and D, and of L."""
    in_size, in_loss = found.standard_errors
    return 1.0 / (in_size**2 + CHOICE_SD_N**2), 1.0 / (in_loss**2 + CHOICE_SD_LOSS**2)


def budget_sd(parabola: Parabola, pooled_sd: float) -> float:
    """Return the standard deviation of ln L about a budget's parabola, shrunk towards the pooled one."""
    n_dof = parabola.n_points - 3
    squares = parabola.residual_squares + PRIOR_DOF * pooled_sd**2
    return math.sqrt(squares / (n_dof + PRIOR_DOF))


def _with_errors(
    observations: Observations, budget: BudgetFit, selection: RunSelection, pooled_sd: float
) -> BudgetFit:
    """Add the standard errors of a valid minimum by the delta method."""
    parabola = budget.parabola
    assert parabola is not None
    sd = max(budget_sd(parabola, pooled_sd), SMALLEST_SD)
    factor = parabola_factor(observations, selection.windows[budget.index]) * sd
    _, c1, c2 = parabola.coefficients
    t = -c1 / (2 * c2)
    by_n, by_loss = np.array([0.0, -1 / (2 * c2), c1 / (2 * c2**2)]), np.array([1.0, t, t * t])
    loss = float(parabola.loss(math.exp(parabola.center + t)))
    return dataclasses.replace(
        budget,
        n_params_opt_se=float(np.linalg.norm(by_n @ factor)),
        loss_opt_se=float(np.linalg.norm(by_loss @ factor)) / loss,
    )


def _direct_exponent(counted: list[BudgetFit]) -> float | None:
    """Return the slope of ln D_opt in ln C by parabolas in ln D; None if one of them has no minimum."""
    pairs = [(budget.flops, budget.n_tokens_opt_direct) for budget in counted]
    if any(tokens is None for _, tokens in pairs):
        return None
    log_c, log_d = np.log(np.array(pairs, dtype=np.float64)).T
    return float(np.polyfit(log_c, log_d, 1)[0])


def _check_budgets(budgets: list[BudgetFit]) -> None:
    counted = [budget for budget in budgets if budget.status == "ok"]
    if not budgets:
        raise RefusedError(
            "no_budgets",
            "no IsoFLOP budgets found: the FLOPs of the points do not form groups of nearly equal C; add a "
            "flops_budget column, or runs of several sizes at equal FLOPs",
        )
    if len(counted) >= MIN_BUDGETS:
        return
    doubtful = [budget for budget in budgets if budget.status != "ok"]
    listed = "; ".join(f"{budget.flops:.3g}: {budget.reason}" for budget in doubtful[:MAX_LISTED])
    if len(doubtful) > MAX_LISTED:
        listed += f"; and {len(doubtful) - MAX_LISTED} more"
    raise RefusedError(
        "too_few_budgets",
        f"{len(counted)} of {len(budgets)} budgets have a valid minimum and {MIN_BUDGETS} are needed"
        + (f" ({listed}): " if listed else ": ")
        + ("add sizes on both sides of each minimum" if listed else "add budgets"),
    )


def _pooled_residuals(budgets: list[BudgetFit]) -> tuple[float, int]:
    """Return the pooled standard deviation of ln L about the parabolas, and its degrees of freedom."""
    fitted = [b.parabola for b in budgets if b.counts_for_noise and b.parabola is not None]
    n_dof = sum(parabola.n_points - 3 for parabola in fitted)
    return math.sqrt(sum(parabola.residual_squares for parabola in fitted) / n_dof), n_dof


def _draw(
    observations: Observations,
    found: Minima,
    log_center: float,
    weights: tuple[FloatArray, FloatArray] | None,
    config: FitConfig,
) -> tuple[FloatArray, list[dict[str, Interval]], int]:
    """Return draws of the law (n_draws, 7), intervals of each minimum, and the number of degenerate draws.

    The location of a minimum is a ratio of coefficients, and its interval is too short where noise makes a
    curve look sharp (Fieller 1954). The factor sqrt((n_dof + 2)/n_dof) corrects for it in N and D; the loss,
    which is not a ratio, keeps the plain draws. Chosen by coverage on planted laws, docs/science_fit.md.
    """
    counted, n_dof = found.counted, found.residual_dof
    widened = math.sqrt((n_dof + 2) / n_dof)
    parabolas = [budget.parabola for budget in counted if budget.parabola is not None]
    coefficients = pooled_t_draws(
        [np.array(parabola.coefficients) for parabola in parabolas],
        [
            parabola_factor(observations, found.selection.windows[budget.index])
            * budget_sd(parabola, found.residual_sd)
            for budget, parabola in zip(counted, parabolas, strict=True)
        ],
        sd=widened,
        n_dof=n_dof,
        n_draws=config.n_bootstrap,
        seed=config.seed,
    )
    usable = np.logical_and.reduce([draw[:, 2] > 0 for draw in coefficients])
    n_degenerate = int((~usable).sum())
    if 2 * n_degenerate > config.n_bootstrap:
        raise RefusedError(
            "degenerate_resamples",
            f"{n_degenerate} of {config.n_bootstrap} resamples have a budget without a minimum, because its "
            f"curvature is within the noise: add sizes further apart, more sizes or more seeds"
            + ("" if config.isoflop.robust else "; for outliers, set fit.isoflop.robust=true"),
        )
    curves = zip(parabolas, coefficients, strict=True)
    minima = [_drawn_minimum(observations, parabola, draw[usable], widened) for parabola, draw in curves]
    log_c = np.stack([minimum[0] for minimum in minima], axis=-1)
    table = np.stack([minimum[1] for minimum in minima], axis=-1)
    intervals = [
        named_intervals(
            {
                "n_params_opt": np.exp(table[:, 0, j]),
                "n_tokens_opt": np.exp(table[:, 1, j]),
                "loss_opt": table[:, 2, j],
            },
            config.confidence,
        )
        for j in range(len(counted))
    ]
    return power_laws(log_c - log_center, table, weights), intervals, n_degenerate


def _drawn_minimum(
    observations: Observations, parabola: Parabola, coefficients: FloatArray, widened: float
) -> tuple[FloatArray, FloatArray]:
    """Return ln C (k,), and ln N, ln D, L (k, 3) at the minima of drawn coefficients (k, 3).

    L is the minimum of the same draw without the factor `widened` in its distance from the estimate.
    """
    estimate = np.array(parabola.coefficients)
    t = Parabola.vertex(coefficients)[0]
    loss = Parabola.vertex(estimate + (coefficients - estimate) / widened)[1]
    log_n, log_c = parabola.center + t, parabola.log_flops(t)
    log_d = log_c - observations.flops_per_token.log_flops(np.exp(log_n))
    return log_c, np.stack([log_n, log_d, loss], axis=1)


def _warnings(observations: Observations, budgets: list[BudgetFit]) -> tuple[str, ...]:
    left_out = [budget for budget in budgets if budget.status != "ok"]
    found = [f"budget {budget.flops:.3g} is not used: {budget.reason}" for budget in left_out]
    found += [
        f"budget {budget.flops:.3g}: the sizes on either side of its minimum are a factor "
        f"{budget.widest_step:.3g} apart, so the parabola depends on few points: add sizes between them"
        for budget in budgets
        if budget.widest_step is not None and budget.widest_step > WIDE_STEP
    ]
    n_outside = int((observations.budget < 0).sum())
    if n_outside:
        found.append(f"{n_outside} points belong to no budget and are not used by this method")
    if observations.has_trunks:
        found.append(
            "points share trunks, but the intervals assume independent noise: they may be too narrow"
        )
    return tuple(found)
