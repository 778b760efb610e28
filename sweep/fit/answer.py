"""The answer of a fit: N_opt, D_opt and L_opt at a budget from all methods, with one interval.

ln N_opt and ln L_opt are weighted means over the methods. A method's weight is the inverse of its expected
squared error ten times beyond the largest budget: of noise, by its draws, and of form, by a prior calibrated
on published sweeps that the method's own rolling backtests update (`sweep.fit.numerics.form_error`). The
interval adds the noise and the form error of the mean, inferred in the same way from the backtests of the
mean itself. `scripts/benchmarks/calibrate_answer.py` measures the constants; docs/science_fit.md reports them
with their coverage.

Legend: N parameters, D tokens, C training FLOPs, L loss; reach is ln C less that of the largest budget.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt

from sweep.fit.checks.backtest import Backtest, LevelErrors, Target
from sweep.fit.laws.base import QUANTITIES, Interval, Law, Optimum, Quantity
from sweep.fit.laws.encoding import from_plain, to_plain
from sweep.fit.methods.windows import OUTLYING, Outlier
from sweep.fit.numerics.form_error import BacktestError, FormError, FormPrior
from sweep.fit.refusals import Refusal
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import Observations, RunNoise

FloatArray = npt.NDArray[np.float64]
TARGETS: tuple[Target, ...] = get_args(Target)

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
    "n_params": FormPrior(median=0.045, log_sd=0.75),
    "loss": FormPrior(median=0.010, log_sd=0.75),
}
"""Of the weighted mean; scripts/benchmarks/calibrate_answer.py."""
PARABOLA_METHODS = frozenset(("isoflop", "trend"))
PARABOLA_SD = 0.02  # of ln N_opt by these; backtests do not show it, since their truths are parabolas too
MIN_WEIGHT = 0.5  # of the methods a backtest error of the mean is made from
N_DRAWS = 1000
SLOPE_STEP = 1e-3  # of ln C, either way, for exponents
MAX_NAMED = 3  # outliers that the warning names


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class AnswerLaw(Law):
    """The weighted mean of several laws, with intervals for noise and form error."""

    laws: Mapping[str, Law]
    weights: Mapping[Target, Mapping[str, float]]  # sum to 1 over the methods
    form: Mapping[Target, FormError]
    flops_max: float  # the largest budget fitted, from which reach is measured
    flops_per_token: FlopsPerToken
    confidence: float
    noise: RunNoise | None
    level_se: float | None  # standard error in nats that all losses share by their held-out windows
    warnings: tuple[str, ...]
    without: tuple[Outlier, ...] = ()  # runs left out of all laws, which then differ from the fit's methods

    @property
    def form_sd(self) -> dict[str, float]:
        """Standard deviation of the form error per e-fold of reach, of ln N and of ln L."""
        return {target: self.form[target].sd for target in TARGETS}

    @property
    def n_draws(self) -> int:
        """Number of draws that `optimum_draws` returns."""
        return N_DRAWS

    @property
    def constants(self) -> dict[str, float]:
        """Exponents a, b and gamma at the largest budget."""
        pair = self.flops_max * np.exp([-SLOPE_STEP, SLOPE_STEP])
        at = self.optimum(pair)
        slopes = [
            float(np.diff(np.log(values))[0]) / (2 * SLOPE_STEP)
            for values in (at.n_params_opt, at.n_tokens_opt, at.loss_opt)
        ]
        return {"a": slopes[0], "b": slopes[1], "gamma": -slopes[2]}

    @property
    def ci(self) -> dict[str, Interval]:
        """Intervals of exponents beyond the largest budget, for noise and form error; empty without draws.

        A form error of ln N is given per e-fold of C, as an exponent is. That of b follows from a's, since
        D = C / f(N).
        """
        constants = self.constants
        half_a, half_gamma = self._half_width_of_slope("n_params"), self._half_width_of_slope("loss")
        if half_a is None or half_gamma is None:
            return {}
        half_b = half_a * abs((1 - constants["b"]) / constants["a"])
        halves = {"a": half_a, "b": half_b, "gamma": half_gamma}
        return {name: (constants[name] - half, constants[name] + half) for name, half in halves.items()}

    def _half_width_of_slope(self, target: Target) -> float | None:
        """Return half the interval of d ln N / d ln C, or of d ln L / d ln C, at the largest budget."""
        laws = self.weights[target]
        if not all(self.laws[name].n_draws for name in laws):
            return None
        pair = self.flops_max * np.exp([-SLOPE_STEP, SLOPE_STEP])
        deviation = 0.0
        for name, weight in laws.items():
            logs = _log(target, self.laws[name].optimum_draws(pair))
            deviation += weight * float(((logs[:, 1] - logs[:, 0]) / (2 * SLOPE_STEP)).std())
        return self.form[target].half_width(deviation**2, 1.0, self.confidence)

    def with_family(self, n_params: FloatArray, flops_per_token: FloatArray) -> Self:
        """Return the law with FLOPs per token beyond the fitted sizes taken from planned sizes (N, f)."""
        return dataclasses.replace(
            self,
            flops_per_token=self.flops_per_token.extended(n_params, flops_per_token),
            laws={name: law.with_family(n_params, flops_per_token) for name, law in self.laws.items()},
        )

    def reach(self, flops: FloatArray) -> FloatArray:
        """Return the e-folds of `flops` beyond the largest budget; zero within the data."""
        return np.maximum(np.log(flops / self.flops_max), 0.0)

    def optimum(self, flops: FloatArray) -> Optimum:
        """Return the weighted mean at budgets `flops` of shape (k,); arrays of shape (k,)."""
        log_n, log_loss = (self._mean(target, flops) for target in TARGETS)
        return self._optimum(flops, log_n, log_loss)

    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """Return N_DRAWS draws at budgets `flops` of shape (k,), with noise and form error."""
        rng = np.random.default_rng(0)
        drawn = [self._mean(target, flops) + self._deviations(target, flops, rng) for target in TARGETS]
        return self._optimum(flops, *drawn)

    def band(self, quantity: Quantity, flops: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return lower and upper confidence limits at budgets `flops` of shape (k,)."""
        if quantity not in QUANTITIES:
            raise ValueError(f"quantity={quantity!r} is not valid: choose from {', '.join(QUANTITIES)}")
        target: Target = "loss" if quantity == "loss_opt" else "n_params"
        half = self._half_widths(target, flops, 0.0)
        if half is None:
            return None
        center = self._mean(target, flops)
        ends = np.exp(center - half), np.exp(center + half)
        if quantity in ("n_params_opt", "loss_opt"):
            return ends
        tokens = [flops / self.flops_per_token(end) for end in ends[::-1]]  # more parameters, fewer tokens
        if quantity == "n_tokens_opt":
            return tokens[0], tokens[1]
        return tokens[0] / ends[1], tokens[1] / ends[0]

    def prediction_interval(self, flops: float) -> Interval | None:
        """Return the interval for the loss of one new run at the optimum.

        It covers noise, form error, the noise of the run and, where known, the error of the level that all
        losses share by their held-out windows. Without that error the interval is for these windows.
        """
        budget = np.array([float(flops)])
        center = float(self._mean("loss", budget)[0])
        variance = 0.0 if self.noise is None else self.noise.sd**2
        if self.level_se is not None:
            variance += (self.level_se / math.exp(center)) ** 2
        half = self._half_widths("loss", budget, variance)
        if half is None:
            return None
        return math.exp(center - float(half[0])), math.exp(center + float(half[0]))

    def loss_off_optimum(self, flops: float, factor: float) -> float | None:
        """Return the loss with `factor` times the optimal N, by the ratio that the laws give, weighted."""
        ratios = []
        for name, law in self.laws.items():
            loss = law.loss_off_optimum(flops, factor)
            if loss is not None:
                ratios.append((self.weights["loss"][name], math.log(loss / law.loss_opt(flops))))
        total = sum(weight for weight, _ in ratios)
        if not total:
            return None
        return self.loss_opt(flops) * math.exp(sum(weight * log for weight, log in ratios) / total)

    def to_json(self) -> dict[str, Any]:
        """Return the entry `answer` of fit.json; the laws themselves are under `methods`."""
        return {
            **self.constants,
            "weights": {target: dict(self.weights[target]) for target in TARGETS},
            "form_sd_per_efold": self.form_sd,
            "form": {target: self.form[target].weights.tolist() for target in TARGETS},
            "flops_max": self.flops_max,
            "confidence": self.confidence,
            "noise": None if self.noise is None else self.noise.to_json(),
            "level_se": self.level_se,
            "flops_per_token": self.flops_per_token.to_json(),
            "warnings": list(self.warnings),
            "without": to_plain(self.without),
            **({"laws": to_plain(self.laws)} if self.without else {}),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`, given the laws of the fit under the key `laws`."""
        names = document["weights"]["loss"]
        return cls(
            laws={name: document["laws"][name] for name in names},
            weights={target: dict(document["weights"][target]) for target in TARGETS},
            form={target: FormError(weights=np.array(document["form"][target])) for target in TARGETS},
            flops_max=document["flops_max"],
            flops_per_token=FlopsPerToken.from_json(document["flops_per_token"]),
            confidence=document["confidence"],
            noise=RunNoise.from_json(document["noise"]),
            level_se=document.get("level_se"),
            warnings=tuple(document["warnings"]),
            without=from_plain(tuple[Outlier, ...], document["without"]),
        )

    def _mean(self, target: Target, flops: FloatArray) -> FloatArray:
        logs = [
            weight * _log(target, self.laws[name].optimum(flops))
            for name, weight in self.weights[target].items()
        ]
        return np.asarray(np.sum(logs, axis=0), dtype=np.float64)

    def noise_variance(self, target: Target, flops: FloatArray) -> FloatArray:
        """Return the variance by noise (methods share points, so deviations add up) and bias of parabolas."""
        deviations = [
            weight * _log(target, self.laws[name].optimum_draws(flops)).std(axis=0)
            for name, weight in self.weights[target].items()
        ]
        share = sum(w for name, w in self.weights[target].items() if name in PARABOLA_METHODS)
        bias = share * PARABOLA_SD if target == "n_params" else 0.0
        return np.asarray(np.sum(deviations, axis=0) ** 2 + bias**2, dtype=np.float64)

    def _half_widths(self, target: Target, flops: FloatArray, extra: float) -> FloatArray | None:
        if not all(self.laws[name].n_draws for name in self.weights[target]):
            return None
        variances, form = self.noise_variance(target, flops) + extra, self.form[target]
        pairs = zip(variances, self.reach(flops), strict=True)
        return np.array([form.half_width(float(v), float(r), self.confidence) for v, r in pairs])

    def _deviations(self, target: Target, flops: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return deviations of the mean (N_DRAWS, k), with one draw of noise and form for all budgets."""
        noise, form = rng.standard_normal((2, N_DRAWS, 1))
        by_form = self.form[target].sample(N_DRAWS, rng)[:, None] * self.reach(flops)
        by_noise = np.sqrt(self.noise_variance(target, flops))
        return np.asarray(noise * by_noise + form * by_form, dtype=np.float64)

    def _optimum(self, flops: FloatArray, log_n: FloatArray, log_loss: FloatArray) -> Optimum:
        n_params = np.exp(log_n)
        return Optimum(
            n_params_opt=n_params,
            n_tokens_opt=flops / self.flops_per_token(n_params),
            loss_opt=np.exp(log_loss),
        )


def combine(
    observations: Observations,
    laws: Mapping[str, Law],
    backtest: Backtest | Refusal | None,
    without: tuple[Outlier, ...] = (),
) -> AnswerLaw | Refusal:
    """Return the answer from the laws that were fitted and their rolling backtest.

    A law with estimates that are not finite has no part in it. `without` are runs left out of the laws.
    """
    flops_max = _largest(observations)
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
    form = {
        target: FormError.infer(answer_priors[target], _errors_of_mean(target, weights[target], errors))
        for target in TARGETS
    }
    return weights, form


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


def _largest(observations: Observations) -> float:
    """Return the largest budget, or the largest C of a table without budgets."""
    if len(observations.budgets):
        return float(observations.budgets[-1])
    return float(observations.flops.max())


def _is_usable(law: Law, flops_max: float) -> bool:
    at = law.optimum(flops_max * np.array([1.0, 100.0]))
    values = np.concatenate([at.n_params_opt, at.n_tokens_opt, at.loss_opt])
    return bool(np.isfinite(values).all() and (values > 0).all())


def _log(target: Target, optimum: Optimum) -> FloatArray:
    return np.log(optimum.loss_opt if target == "loss" else optimum.n_params_opt)


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
        noise = float(_log(target, law.optimum_draws(flops)).var()) if law.n_draws else 0.0
        inverse[name] = 1.0 / (noise + (form.sd * REFERENCE_REACH) ** 2)
    total = sum(inverse.values())
    return {name: value / total for name, value in inverse.items()}


def shares(weights: Mapping[str, float], methods: Iterable[str]) -> dict[str, float]:
    """Return the weights of `methods`, scaled to sum to 1; empty if they sum to less than MIN_WEIGHT."""
    known = {name: weights[name] for name in methods if name in weights}
    total = sum(known.values())
    return {name: weight / total for name, weight in known.items()} if total >= MIN_WEIGHT else {}


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
