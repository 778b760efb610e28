"""Fitted and published laws as curves over compute, contours of equal loss, and refits without a run.

Legend: N parameters, D tokens, C training FLOPs, L loss, f(N) = C / D FLOPs per token.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.answer import AnswerLaw
from sweep.fit.fit import METHODS, Fit
from sweep.fit.laws.base import QUANTITIES, Law
from sweep.fit.laws.catalogue import CATALOGUE
from sweep.fit.laws.published import catalogue_law
from sweep.fit.methods.parametric import ParametricLaw
from sweep.fit.methods.trend import fit_trend_law
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations, select
from sweep.report.html.numbers import rounded
from sweep.report.results import SweepResults
from sweep.report.series.isoloss import IsoLoss, isoloss
from sweep.report.series.optima import EXPONENTS, slope_over

FloatArray = npt.NDArray[np.float64]

N_CURVE = 61  # budgets of a curve
BEFORE, BEYOND = 1.5, 10.0  # curves reach from the smallest budget / BEFORE to the largest * BEYOND
N_CONTOUR = 61  # points of a contour
N_CONTOUR_FLOPS, PAST_EDGE = 161, 10.0
N_BISECTIONS = 8  # at each end of a contour
MAX_REFITS = 200  # runs that are left out one by one; each refit takes about 5 ms
N_REFIT = 13  # budgets at which a refit is given: its law is straight in logarithms
REFITTED = "trend"


def curves(fit: Fit) -> dict[str, Any]:
    """Return the answer and every law over C with their intervals; only the refusals without a law."""
    refused = {name: law.reason for name, law in fit.methods.items() if not isinstance(law, Law)}
    if fit.flops_range is None or not fit.laws:
        return {"refused": refused}
    low, high = fit.flops_range
    flops = np.geomspace(low / BEFORE, high * BEYOND, N_CURVE)
    answer = {"answer": fit.answer} if isinstance(fit.answer, AnswerLaw) else {}
    laws: dict[str, Law] = {**answer, **fit.laws}
    weights = fit.answer.weights if isinstance(fit.answer, AnswerLaw) else {}
    return {
        "flops": rounded(flops),
        "flops_range": [low, high],
        "methods": [
            {
                "name": name,
                "color": METHODS[name].color if name in METHODS else None,
                "doubted": name != "answer" and law.doubted,
                "weights": {target: rounded(own.get(name), 3) for target, own in weights.items()},
                "exponents": _exponents(law, fit.flops_range),
                "warnings": list(law.warnings),
                **_over(law, flops),
            }
            for name, law in laws.items()
        ],
        "refused": refused,
        "published": list(_published(flops)),
    }


def _exponents(law: Law, flops_range: tuple[float, float]) -> dict[str, Any]:
    """Return the slopes of total N and D in C over the fitted range, those of the answer at its budgets."""
    if isinstance(law, AnswerLaw):
        return {
            symbol: {"value": rounded(law.constants[symbol]), "interval": rounded(law.ci.get(symbol))}
            for symbol in EXPONENTS.values()
        }
    found = {symbol: slope_over(law, quantity, flops_range) for quantity, symbol in EXPONENTS.items()}
    return {
        symbol: {"value": rounded(slope), "interval": rounded(interval)}
        for symbol, (slope, interval) in found.items()
    }


def _over(law: Law, flops: FloatArray) -> dict[str, Any]:
    optimum = law.optimum(flops)
    bands = {quantity: law.band(quantity, flops) for quantity in QUANTITIES}
    return {
        "estimate": {quantity: rounded(getattr(optimum, quantity)) for quantity in QUANTITIES},
        "band": {quantity: rounded(band) for quantity, band in bands.items() if band is not None},
    }


def _published(flops: FloatArray) -> Iterator[dict[str, Any]]:
    """Yield the published laws that give N or D over C, each in its authors' convention."""
    for name, entry in CATALOGUE.items():
        yield {
            "name": name,
            "source": entry.source,
            "convention": entry.convention,
            "flops_range": rounded(entry.flops_range),
            "estimate": _over(catalogue_law(name), flops)["estimate"],
        }


def contours(results: SweepResults) -> list[dict[str, Any]]:
    """Return curves of equal loss of the parametric surface over C and N, and its efficient frontier.

    At fixed N the loss falls with C, so that a contour is one curve C(N).
    """
    law = results.fit.methods.get("parametric")
    if not isinstance(law, ParametricLaw):
        return []
    return [
        {
            "method": surface.method,
            "doubted": surface.doubted,
            "levels": [
                {"loss": rounded(level), **_contour(law, surface, level)} for level in surface.levels.tolist()
            ],
            "frontier": {
                "flops": rounded(surface.flops[::3]),
                "n_params": rounded(surface.frontier_n_params[::3]),
            },
            "flops_max": surface.flops_max,
            "flops_range": rounded([surface.flops[0], surface.flops[-1]]),
            "n_params_range": rounded([surface.n_params[0], surface.n_params[-1]]),
        }
        for surface in isoloss(results)
    ]


def _contour(law: ParametricLaw, surface: IsoLoss, level: float) -> dict[str, Any]:
    """Return C(N) of one level, up to a factor beyond the edges of the figure.

    Where the contour leaves this range of C between two sizes, the last size within it is found by bisection.
    """
    wide = np.geomspace(surface.flops[0] / PAST_EDGE, surface.flops[-1] * PAST_EDGE, N_CONTOUR_FLOPS)

    def at(size: float) -> float | None:
        losses = law.loss(size, wide / law.flops_per_token(np.array([size])))
        if not losses[-1] <= level <= losses[0]:
            return None
        return float(np.exp(np.interp(-level, -losses, np.log(wide))))

    sizes = np.geomspace(surface.n_params[0], surface.n_params[-1], N_CONTOUR).tolist()
    found = {size: flops for size in sizes if (flops := at(size)) is not None}
    for pair in itertools.pairwise(sizes):
        inside = [size for size in pair if size in found]
        if len(inside) == 1:
            (low,) = inside
            (high,) = set(pair) - set(inside)
            for _ in range(N_BISECTIONS):
                middle = math.sqrt(low * high)
                flops = at(middle)
                if flops is None:
                    high = middle
                else:
                    low, found[middle] = middle, flops
    return {"n_params": rounded(sorted(found)), "flops": rounded([found[size] for size in sorted(found)])}


def leave_outs(observations: Observations, config: FitConfig, flops_max: float) -> dict[str, Any] | None:
    """Refit `trend`, the law with most weight in answers, without each budget and without each run.

    Of a sweep with more than MAX_REFITS runs, those of the largest budgets are left out one by one.
    """
    quick = dataclasses.replace(config, n_bootstrap=0)
    flops = np.geomspace(float(observations.flops.min()) / BEFORE, flops_max * BEYOND, N_REFIT)
    everything = np.ones(len(observations), dtype=bool)
    full = _refit(observations, everything, quick, flops)
    if "refused" in full:
        return None
    budgets = [
        {"flops_budget": rounded(budget), **_refit(observations, observations.budget != at, quick, flops)}
        for at, budget in enumerate(observations.budgets.tolist())
    ]
    runs = {}
    for row in np.argsort(-observations.flops, kind="stable")[:MAX_REFITS].tolist():
        without = everything.copy()
        without[row] = False
        runs[observations.labels[row]] = _refit(observations, without, quick, flops)
    return {
        "method": REFITTED,
        "flops": rounded(flops),
        "full": full,
        "budgets": budgets,
        "runs": runs,
    }


def _refit(
    observations: Observations, rows: npt.NDArray[np.bool_], config: FitConfig, flops: FloatArray
) -> Mapping[str, Any]:
    try:
        law = fit_trend_law(select(observations, rows), config)
    except RefusedError as refused:
        return {"refused": refused.refusal.reason}
    ends = np.array([flops[0], flops[-1]])
    at = law.optimum(ends)
    return {"n_params": rounded(at.n_params_opt), "loss": rounded(at.loss_opt)}
