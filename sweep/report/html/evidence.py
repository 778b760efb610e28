"""Evidence for and against a fit: backtests, residuals, agreement of methods, conventions, checks.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.fit.answer import AnswerLaw
from sweep.fit.checks.reconcile import ReconciledRow
from sweep.fit.combination import shares
from sweep.fit.fit import METHODS, Fit
from sweep.fit.refusals import Refusal
from sweep.report.html.numbers import rounded
from sweep.report.results import SweepResults
from sweep.report.series.backtest import BacktestMarks, backtest_marks
from sweep.report.series.hparams import hparam_curves
from sweep.report.series.residuals import residuals

FloatArray = npt.NDArray[np.float64]
N_FAN = 25  # reaches at which the interval is given


def backtest(results: SweepResults) -> dict[str, Any] | None:
    """Return the errors of every method against reach, and the answer's half-widths as a fan."""
    found = results.fit.backtest
    if found is None:
        return None
    if isinstance(found, Refusal):
        return {"refused": found.reason}
    marks = backtest_marks(results)
    farthest = max((float(one.factor.max()) for one in marks), default=10.0)
    methods = [
        {
            "name": one.method,
            "color": METHODS[one.method].color if one.method in METHODS else None,
            "factor": rounded(one.factor),
            "loss_error": rounded(one.loss_error),
            "n_params_error": rounded(one.n_params_error),
        }
        for one in marks
    ]
    return {
        "kind": found.kind,
        "methods": [*methods, *_answer_errors(results.fit, marks)],
        "fan": _fan(results.fit, max(10.0, farthest)),
    }


def _answer_errors(fit: Fit, marks: Sequence[BacktestMarks]) -> Iterator[dict[str, Any]]:
    """Yield the errors of the mean of the methods, by the answer's weights; nothing without an answer."""
    if not isinstance(fit.answer, AnswerLaw):
        return
    reaches = sorted({factor for one in marks for factor in one.factor.tolist()})
    of_loss, of_size = fit.answer.weights["loss"], fit.answer.weights["n_params"]
    yield {
        "name": "answer",
        "color": None,
        "factor": rounded(reaches),
        "loss_error": rounded([_mean_error(marks, "loss_error", of_loss, at) for at in reaches]),
        "n_params_error": rounded([_mean_error(marks, "n_params_error", of_size, at) for at in reaches]),
    }


def _mean_error(
    marks: Sequence[BacktestMarks], key: str, weights: Mapping[str, float], reach: float
) -> float:
    """Return the error of the methods' weighted mean at one reach, nan where too few have one."""
    errors: dict[str, list[float]] = {}  # of several cuts with this reach
    for one in marks:
        for factor, error in zip(one.factor.tolist(), getattr(one, key).tolist(), strict=True):
            if factor == reach and math.isfinite(error):
                errors.setdefault(one.method, []).append(error)
    share = shares(weights, errors)
    return sum(share[name] * fmean(errors[name]) for name in share) if share else math.nan


def _fan(fit: Fit, farthest: float) -> dict[str, Any] | None:
    """Return the answer's relative interval of L and N beyond the largest budget."""
    if not isinstance(fit.answer, AnswerLaw):
        return None
    law, factor = fit.answer, np.geomspace(1.0, farthest, N_FAN)
    flops = law.flops_max * factor
    bands = law.band("loss_opt", flops), law.band("n_params_opt", flops)
    if bands[0] is None or bands[1] is None:
        return None
    at = law.optimum(flops)
    return {
        "factor": rounded(factor),
        "loss": rounded([end / at.loss_opt - 1 for end in bands[0]]),
        "n_params": rounded([end / at.n_params_opt - 1 for end in bands[1]]),
    }


def residual_rows(results: SweepResults, index: dict[str, int]) -> list[dict[str, Any]]:
    """Return the residuals of ln L by method, with the index of each run."""
    labels = results.observations().labels
    return [
        {
            "name": one.method,
            "color": METHODS[one.method].color,
            "run": [index[label] for label in labels],
            "flops": rounded(one.flops),
            "residual": rounded(one.residual, 4),
            "sd": rounded(one.sd),
        }
        for one in residuals(results)
    ]


def agreement(fit: Fit) -> dict[str, Any] | None:
    """Return the optimum of every method at multiples of the largest budget, and the disagreements."""
    if fit.agreement is None:
        return None
    return {
        "rows": [
            {
                "reach": row.reach,
                "flops": rounded(row.flops),
                "methods": {
                    name: {
                        "n_params_opt": rounded(found.n_params_opt),
                        "n_tokens_opt": rounded(found.n_tokens_opt),
                        "loss_opt": rounded(found.loss_opt),
                        "ci": rounded(found.ci),
                    }
                    for name, found in row.methods.items()
                },
            }
            for row in fit.agreement.rows
        ],
        "disagreements": list(fit.agreement.disagreements),
    }


def reconcile(fit: Fit) -> list[dict[str, Any]]:
    """Return the exponents under every counting convention; empty unless the fit has them."""
    rows = () if fit.reconcile is None else fit.reconcile.rows
    return [_reconciled(row) for row in rows]


def _reconciled(row: ReconciledRow) -> dict[str, Any]:
    return {
        "method": row.method,
        "n_params": row.n_params,
        "offset": row.offset,
        "flops": row.flops,
        "a": rounded(row.a),
        "b": rounded(row.b),
        "refused": None if row.refusal is None else row.refusal.reason,
    }


def hparams(results: SweepResults) -> list[dict[str, Any]]:
    """Return the curves of the hyperparameter check; empty without one."""
    return [
        {
            "corner": curve.corner,
            "flops_budget": curve.flops_budget,
            "axis": curve.axis,
            "is_small": curve.is_small,
            "factor": rounded(curve.factor),
            "difference": rounded(curve.difference),
            "stderr": rounded(curve.stderr),
            "parabola_factor": rounded(curve.parabola_factor[::3]),
            "parabola": rounded(curve.parabola[::3]),
        }
        for curve in hparam_curves(results)
    ]
