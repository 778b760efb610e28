"""Combination of the methods of a fit into its answer: weights, and the form error of the weighted mean.

A method's weight is the inverse of its expected squared error ten times beyond the largest budget: of noise,
by its draws, and of form, by a prior calibrated on published sweeps that the method's own rolling backtests
update (`sweep.fit.numerics.form_error`). The form error of the mean is inferred in the same way from the
backtests of the mean itself. `scripts/benchmarks/calibrate_answer.py` measures the constants;
docs/science_fit.md reports them with their coverage.

Legend: N parameters, C training FLOPs, L loss; reach is ln C less that of the largest budget.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sweep.fit.answer import TARGETS, AnswerLaw, log_of
from sweep.fit.checks.backtest_errors import Backtest, LevelErrors, Target
from sweep.fit.laws.base import Law
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.fit.methods.windows import OUTLYING, Outlier
from sweep.fit.numerics.form_error import BacktestError, FormError, FormPrior
from sweep.fit.refusals import Refusal
from sweep.fit.table.observations import Observations

REFERENCE_REACH = math.log(10.0)  # at which methods are weighted
METHOD_PRIORS: Mapping[str, Mapping[Target, float]] = {
    "trend": {"n_params": 0.05, "loss": 0.012},
    "isoflop": {"n_params": 0.20, "loss": 0.012},
    "parametric": {"n_params": 0.30, "loss": 0.025},
    "kaplan": {"n_params": 0.50, "loss": 0.035},
    "overtraining": {"n_params": 0.20, "loss": 0.040},
    "data_constrained": {"n_params": 0.40, "loss": 0.040},
}
"""Median form error per e-fold of reach, in ln N and ln L; scripts/benchmarks/calibrate_answer.py."""
LEFT_OUT = frozenset(("envelope",))
"""Methods that have no part: the losses of the envelope's hull are training losses, shifted by one gap."""
OTHER_METHOD: Mapping[Target, float] = {"n_params": 0.5, "loss": 0.05}
METHOD_LOG_SD = 0.35
DOUBTED = 2.0  # factor on the form error of a method with lack of fit
ANSWER_PRIORS: Mapping[Target, FormPrior] = {
    "n_params": FormPrior(median=0.022, log_sd=0.75),
    "loss": FormPrior(median=0.005, log_sd=0.75),
}
"""Of the weighted mean; scripts/benchmarks/calibrate_answer.py."""
FEW_METHODS = 3  # fewer do not show by their disagreement how far their mean may be off
FEW_FACTOR = 2.0  # on the medians of their priors, which then cover as much without the disagreement
MIN_WEIGHT = 0.5  # of the methods a backtest error of the mean is made from
MAX_NAMED = 3  # outliers that the warning names


def combine(
    observations: Observations,
    laws: Mapping[str, Law],
    backtest: Backtest | Refusal | None,
    without: tuple[Outlier, ...] = (),
) -> AnswerLaw | Refusal:
    """Return the answer from the laws that were fitted and their rolling backtest.

    A law with estimates that are not finite has no part in it. `without` are runs left out of the laws.
    """
    flops_max = _largest(observations, laws)
    usable = {name: law for name, law in laws.items() if name not in LEFT_OUT and _is_usable(law, flops_max)}
    if not usable:
        return Refusal(
            kind="no_law",
            reason="no method could be fitted to these points",
        )
    weights, form = calibrated(usable, backtest, flops_max)
    heaviest = usable[max(weights["loss"], key=lambda name: weights["loss"][name])]
    return AnswerLaw(
        laws=usable,
        weights=weights,
        form=form,
        flops_max=flops_max,
        flops_per_token=observations.flops_per_token,
        confidence=heaviest.confidence,
        noise=observations.replicate_noise or heaviest.noise,
        level_se=observations.level_se,
        warnings=_warnings(without),
        without=without,
    )


def calibrated(
    laws: Mapping[str, Law],
    backtest: Backtest | Refusal | None,
    flops_max: float,
    *,
    method_priors: Mapping[str, Mapping[Target, float]] = METHOD_PRIORS,
    answer_priors: Mapping[Target, FormPrior] = ANSWER_PRIORS,
) -> tuple[dict[Target, dict[str, float]], dict[Target, FormError]]:
    """Return the weights of the laws and the form error of their mean, by quantity."""
    errors = backtest.errors if isinstance(backtest, Backtest) else ()
    weights = {target: _weights(target, laws, errors, flops_max, method_priors) for target in TARGETS}
    priors = priors_for(len(laws), answer_priors)
    form = {
        target: FormError.infer(priors[target], _errors_of_mean(target, weights[target], errors))
        for target in TARGETS
    }
    return weights, form


def priors_for(
    n_methods: int, priors: Mapping[Target, FormPrior] = ANSWER_PRIORS
) -> Mapping[Target, FormPrior]:
    """Return the priors of the form error of a mean over `n_methods` methods."""
    if n_methods >= FEW_METHODS:
        return priors
    return {
        target: dataclasses.replace(prior, median=FEW_FACTOR * prior.median)
        for target, prior in priors.items()
    }


def shares(weights: Mapping[str, float], methods: Iterable[str]) -> dict[str, float]:
    """Return the weights of `methods`, scaled to sum to 1; empty if they sum to less than MIN_WEIGHT."""
    known = {name: weights[name] for name in methods if name in weights}
    total = sum(known.values())
    return {name: weight / total for name, weight in known.items()} if total >= MIN_WEIGHT else {}


def _warnings(without: tuple[Outlier, ...]) -> tuple[str, ...]:
    if not without:
        return ()
    named = "; ".join(
        f"{run.run_key} (N = {run.n_params:.4g}, D = {run.n_tokens:.4g}, loss {run.loss:.4g})"
        for run in without[:MAX_NAMED]
    )
    more = f"; and {len(without) - MAX_NAMED} more" if len(without) > MAX_NAMED else ""
    return (
        f"the answer leaves out {len(without)} run{'s' * (len(without) > 1)} more than {OUTLYING:g} robust "
        f"standard deviations from the curve of the budget: {named}{more}; check them, and exclude those "
        f"that are wrong",
    )


def _largest(observations: Observations, laws: Mapping[str, Law]) -> float:
    """Return the largest budget with a valid minimum, else the largest budget, else the largest C."""
    isoflop = laws.get("isoflop")
    if isinstance(isoflop, IsoflopLaw):
        return max(budget.flops_budget for budget in isoflop.budgets if budget.status == "ok")
    if len(observations.budgets):
        return float(observations.budgets[-1])
    return float(observations.flops.max())


def _is_usable(law: Law, flops_max: float) -> bool:
    at = law.optimum(flops_max * np.array([1.0, 100.0]))
    values = np.concatenate([at.n_params_opt, at.n_tokens_opt, at.loss_opt])
    return bool(np.isfinite(values).all() and (values > 0).all())


def _weights(
    target: Target,
    laws: Mapping[str, Law],
    errors: Sequence[LevelErrors],
    flops_max: float,
    priors: Mapping[str, Mapping[Target, float]],
) -> dict[str, float]:
    """Return the inverse expected squared errors at the reference reach, scaled to sum to 1."""
    flops = np.array([flops_max * math.exp(REFERENCE_REACH)])
    inverse = {}
    for name, law in laws.items():
        median = priors.get(name, OTHER_METHOD)[target] * (DOUBTED if law.doubted else 1.0)
        own = [entry.methods[name][target] for entry in errors if target in entry.methods.get(name, {})]
        form = FormError.infer(FormPrior(median=median, log_sd=METHOD_LOG_SD), own)
        noise = float(log_of(target, law.optimum_draws(flops)).var()) if law.n_draws else 0.0
        inverse[name] = 1.0 / (noise + (form.sd * REFERENCE_REACH) ** 2)
    total = sum(inverse.values())
    return {name: value / total for name, value in inverse.items()}


def _errors_of_mean(
    target: Target, weights: Mapping[str, float], errors: Sequence[LevelErrors]
) -> list[BacktestError]:
    """Return the backtest errors of the weighted mean, from the methods fitted at each cut."""
    found = []
    for entry in errors:
        single = {
            name: found_at[target]
            for name, found_at in entry.methods.items()
            if name in weights and target in found_at
        }
        share = shares(weights, single)
        if not share:
            continue
        found.append(
            BacktestError(
                cut=entry.cut,
                reach=entry.reach,
                error=sum(share[name] * error.error for name, error in single.items()),
                variance=sum(share[name] * math.sqrt(error.variance) for name, error in single.items()) ** 2,
            )
        )
    return found
