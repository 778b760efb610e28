"""The answer on a dense grid of budgets, from which the page interpolates.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.fit.answer import AnswerLaw
from sweep.report.html.numbers import rounded

FloatArray = npt.NDArray[np.float64]
RunAt = Callable[[float, float, float], Mapping[str, Any]]
"""Returns the concrete run for a budget, N and D."""

N_GRID = 481  # budgets; linear in logarithms between them, the page is within 2e-5 of the law
N_WITHIN, N_BEYOND = 73, 110  # budgets within and beyond the data at which intervals are computed
N_RUN = 25  # of them, at which the interval of one new run is computed
NEAREST = 4e-3  # e-folds: intervals begin to widen at the largest budget, so that the first steps are small
BELOW = 3.0  # the grid starts at the smallest budget divided by this
DIGITS = 8  # of the numbers on the grid


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AskGrid:
    """The answer at ascending budgets; arrays of shape (k,), intervals (2, k)."""

    flops: FloatArray
    estimate: Mapping[str, FloatArray]  # by quantity
    interval: Mapping[str, FloatArray]  # by quantity, and `loss_run` of one new run; empty without draws
    runs: tuple[Mapping[str, Any] | None, ...]  # concrete runs at the budgets; empty without a family
    flops_max: float  # the largest fitted budget
    limit: float  # budgets above it are refused
    limit_reason: str
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """Return its entry in the document."""
        return {
            "flops": rounded(self.flops, 12),
            "estimate": {name: rounded(values, DIGITS) for name, values in self.estimate.items()},
            "interval": {name: rounded(ends, DIGITS) for name, ends in self.interval.items()},
            "runs": _packed(self.runs),
            "flops_max": self.flops_max,
            "limit": self.limit,
            "limit_reason": self.limit_reason,
            "confidence": self.confidence,
        }


def ask_grid(
    law: AnswerLaw,
    smallest: float,
    *,
    max_reach: float,
    max_interval_factor: float,
    family: tuple[FloatArray, FloatArray] | None = None,
    run_at: RunAt | None = None,
) -> AskGrid:
    """Return the answer from the smallest budget to the largest that is not refused.

    `family` are N and FLOPs per token of the sizes that could be planned, as in predictions.
    """
    if family is not None:
        law = law.with_family(*family)
    limit = law.flops_max * max_reach
    beyond = law.flops_max * np.exp(np.geomspace(NEAREST, max(math.log(max_reach), 2 * NEAREST), N_BEYOND))
    coarse = np.unique([*np.geomspace(smallest / BELOW, law.flops_max, N_WITHIN), law.flops_max, *beyond])
    bands = _bands(law, coarse)
    reason = f"fit.max_reach={max_reach:g} times the largest fitted budget"
    if "n_params_opt" in bands:
        width = bands["n_params_opt"][1] / bands["n_params_opt"][0]
        wide = np.flatnonzero((width > max_interval_factor) & (coarse > law.flops_max))
        if len(wide):
            limit = float(coarse[wide[0] - 1])
            reason = f"its interval of N_opt is wider than fit.max_interval_factor={max_interval_factor:g}"
    flops = np.unique([*np.geomspace(smallest / BELOW, limit, N_GRID), *coarse])
    flops = flops[flops <= limit * (1 + 1e-12)]
    optimum = law.optimum(flops)
    estimate = {
        "n_params_opt": optimum.n_params_opt,
        "n_tokens_opt": optimum.n_tokens_opt,
        "tokens_per_param_opt": optimum.tokens_per_param_opt,
        "loss_opt": optimum.loss_opt,
    }
    return AskGrid(
        flops=flops,
        estimate=estimate,
        interval=_intervals(law, estimate, coarse, bands, flops),
        runs=() if run_at is None else tuple(_runs(run_at, flops, estimate)),
        flops_max=law.flops_max,
        limit=limit,
        limit_reason=reason,
        confidence=law.confidence,
    )


def _bands(law: AnswerLaw, flops: FloatArray) -> dict[str, FloatArray]:
    """Return the intervals (2, k) of N_opt, L_opt and the loss of one new run; empty without draws."""
    n_params, loss = law.band("n_params_opt", flops), law.band("loss_opt", flops)
    if n_params is None or loss is None:
        return {}
    bands = {"n_params_opt": n_params, "loss_opt": loss, "loss_run": _run_band(law, flops, np.array(loss))}
    return {name: np.array(band) for name, band in bands.items()}


def _run_band(law: AnswerLaw, flops: FloatArray, loss: FloatArray) -> FloatArray:
    """Return the interval (2, k) of one new run, from that of the law at a few budgets.

    What the run adds to the squared half-width in ln L hardly depends on the budget and is interpolated.
    """
    center = np.log(law.optimum(flops).loss_opt)
    few = np.unique(np.linspace(0, len(flops) - 1, N_RUN).astype(int))
    found = [law.prediction_interval(float(flops[row])) or (math.nan, math.nan) for row in few]
    squares = (np.log(found) - center[few, None])[:, 1] ** 2 - (np.log(loss[1]) - center)[few] ** 2
    added = np.interp(np.log(flops), np.log(flops[few]), squares)
    half = np.sqrt((np.log(loss[1]) - center) ** 2 + added)
    return np.asarray(np.exp(np.stack([center - half, center + half])), dtype=np.float64)


def _intervals(
    law: AnswerLaw,
    estimate: Mapping[str, FloatArray],
    coarse: FloatArray,
    bands: Mapping[str, FloatArray],
    flops: FloatArray,
) -> dict[str, FloatArray]:
    """Interpolate half-widths in logarithms, and derive the intervals of D and D/N as the law does."""
    if not bands:
        return {}
    at = law.optimum(coarse)
    found = {}
    for name, band in bands.items():
        own = "n_params_opt" if name == "n_params_opt" else "loss_opt"
        half = np.log(band) - np.log(getattr(at, own))
        fine = np.stack([np.interp(np.log(flops), np.log(coarse), side) for side in half])
        found[name] = np.exp(np.log(estimate[own]) + fine)
    low, high = found["n_params_opt"]
    tokens = np.stack([flops / law.flops_per_token(high), flops / law.flops_per_token(low)])
    found["n_tokens_opt"] = tokens
    found["tokens_per_param_opt"] = np.stack([tokens[0] / high, tokens[1] / low])
    return found


def _runs(
    run_at: RunAt, flops: FloatArray, estimate: Mapping[str, FloatArray]
) -> list[Mapping[str, Any] | None]:
    columns = (flops, estimate["n_params_opt"], estimate["n_tokens_opt"])
    return [run_at(*(float(value) for value in row)) for row in zip(*columns, strict=True)]


def _packed(runs: tuple[Mapping[str, Any] | None, ...]) -> dict[str, list[Any]]:
    """Return runs as columns."""
    names = dict.fromkeys(name for run in runs for name in (run or {}) if name != "notes")
    columns: dict[str, list[Any]] = {name: [(run or {}).get(name) for run in runs] for name in names}
    return columns | {"notes": [list((run or {}).get("notes", ())) for run in runs]} if runs else {}
