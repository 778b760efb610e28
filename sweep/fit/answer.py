"""The answer of a fit: N_opt, D_opt and L_opt at a budget from all methods, with one interval.

ln N_opt and ln L_opt are weighted means over the methods (`sweep.fit.combination`). The interval adds the
noise, the disagreement of the methods, and the form error of the mean.

Legend: N parameters, D tokens, C training FLOPs, L loss; reach is ln C less that of the largest budget.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt

from sweep.fit.checks.backtest_errors import Target
from sweep.fit.laws.base import QUANTITIES, Interval, Law, Optimum, Quantity
from sweep.fit.laws.encoding import from_plain, to_plain
from sweep.fit.methods.windows import Outlier
from sweep.fit.numerics.form_error import FormError
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import RunNoise

FloatArray = npt.NDArray[np.float64]
TARGETS: tuple[Target, ...] = get_args(Target)

DISAGREEMENT = 0.4
"""Part of the weighted variance between methods that counts as an error of their mean; measured by
scripts/benchmarks/calibrate_answer.py."""
PARABOLA_METHODS = frozenset(("isoflop", "trend"))
PARABOLA_SD = 0.02  # of ln N_opt by these; backtests do not show it, since their truths are parabolas too
N_DRAWS = 1000
SLOPE_STEP = 1e-3  # of ln C, either way, for exponents


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class AnswerLaw(Law):
    """The weighted mean of several laws, with intervals for noise, disagreement and form error."""

    laws: Mapping[str, Law]
    weights: Mapping[Target, Mapping[str, float]]  # sum to 1 over the methods
    form: Mapping[Target, FormError]
    flops_max: float  # the largest budget with a valid minimum, from which reach is measured
    flops_per_token: FlopsPerToken
    confidence: float
    noise: RunNoise | None
    level_se: float | None  # standard error in nats that all losses share by their held-out windows
    warnings: tuple[str, ...]
    disagreement: float = DISAGREEMENT
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
        """Intervals of exponents beyond the largest budget; empty without draws.

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
        deviation, slopes = 0.0, {}
        for name, weight in laws.items():
            logs = log_of(target, self.laws[name].optimum_draws(pair))
            deviation += weight * float(((logs[:, 1] - logs[:, 0]) / (2 * SLOPE_STEP)).std())
            slopes[name] = np.diff(log_of(target, self.laws[name].optimum(pair))) / (2 * SLOPE_STEP)
        variance = deviation**2 + self.disagreement * float(_spread(laws, slopes)[0])
        return self.form[target].half_width(variance, 1.0, self.confidence)

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
        """Return N_DRAWS draws at budgets `flops` of shape (k,), with all parts of the interval."""
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

        It covers the errors of the optimum's loss, the noise of the run and, where known, the error of the
        level that all losses share by their held-out windows. Without that error the interval is for these
        windows.
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
            "disagreement": self.disagreement,
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
            disagreement=document.get("disagreement", 0.0),  # of fits by earlier versions
            warnings=tuple(document["warnings"]),
            without=from_plain(tuple[Outlier, ...], document["without"]),
        )

    def _mean(self, target: Target, flops: FloatArray) -> FloatArray:
        logs = [
            weight * log_of(target, self.laws[name].optimum(flops))
            for name, weight in self.weights[target].items()
        ]
        return np.asarray(np.sum(logs, axis=0), dtype=np.float64)

    def noise_variance(self, target: Target, flops: FloatArray) -> FloatArray:
        """Return the variance by noise (methods share points, so deviations add up) and bias of parabolas."""
        deviations = [
            weight * log_of(target, self.laws[name].optimum_draws(flops)).std(axis=0)
            for name, weight in self.weights[target].items()
        ]
        share = sum(w for name, w in self.weights[target].items() if name in PARABOLA_METHODS)
        bias = share * PARABOLA_SD if target == "n_params" else 0.0
        return np.asarray(np.sum(deviations, axis=0) ** 2 + bias**2, dtype=np.float64)

    def disagreement_variance(self, target: Target, flops: FloatArray) -> FloatArray:
        """Return the variance of ln N_opt or ln L_opt by the spread of the methods about their mean."""
        predicted = {name: log_of(target, self.laws[name].optimum(flops)) for name in self.weights[target]}
        return self.disagreement * _spread(self.weights[target], predicted)

    def _variance(self, target: Target, flops: FloatArray) -> FloatArray:
        """Return the variance by all but the form error of the mean."""
        return self.noise_variance(target, flops) + self.disagreement_variance(target, flops)

    def _half_widths(self, target: Target, flops: FloatArray, extra: float) -> FloatArray | None:
        if not all(self.laws[name].n_draws for name in self.weights[target]):
            return None
        variances, form = self._variance(target, flops) + extra, self.form[target]
        pairs = zip(variances, self.reach(flops), strict=True)
        return np.array([form.half_width(float(v), float(r), self.confidence) for v, r in pairs])

    def _deviations(self, target: Target, flops: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return deviations of the mean (N_DRAWS, k), with one draw of each part for all budgets."""
        noise, form = rng.standard_normal((2, N_DRAWS, 1))
        by_form = self.form[target].sample(N_DRAWS, rng)[:, None] * self.reach(flops)
        by_noise = np.sqrt(self._variance(target, flops))
        return np.asarray(noise * by_noise + form * by_form, dtype=np.float64)

    def _optimum(self, flops: FloatArray, log_n: FloatArray, log_loss: FloatArray) -> Optimum:
        n_params = np.exp(log_n)
        return Optimum(
            n_params_opt=n_params,
            n_tokens_opt=flops / self.flops_per_token(n_params),
            loss_opt=np.exp(log_loss),
        )


def log_of(target: Target, optimum: Optimum) -> FloatArray:
    """Return the logarithm of L_opt or of N_opt."""
    return np.log(optimum.loss_opt if target == "loss" else optimum.n_params_opt)


def _spread(weights: Mapping[str, float], predicted: Mapping[str, FloatArray]) -> FloatArray:
    """Return the weighted variance between methods of the values (k,) they predict; weights sum to 1."""
    mean = sum(weights[name] * values for name, values in predicted.items())
    squares = [weights[name] * (values - mean) ** 2 for name, values in predicted.items()]
    return np.asarray(np.sum(squares, axis=0), dtype=np.float64)
