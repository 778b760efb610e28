"""Leaves out the largest budgets, fits the rest, and reports the error of what was predicted for them.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.base import Law
from sweep.fit.methods.parabola import fit_budget
from sweep.fit.refusals import Refusal, RefusedError
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]
Method = Callable[[Observations, FitConfig], Law]

MIN_BUDGETS, TWO_FROM = 4, 5  # leave out one from four budgets on, two from five on
N_BANDS = 8  # of ln C, where the table has no budgets
MIN_PER_BAND = 3


def backtest(
    observations: Observations, config: FitConfig, methods: Mapping[str, Method]
) -> dict[str, Any] | Refusal:
    """The `backtest` entry of fit.json, or why there is none.

    The truth is the held-out points themselves: their losses, and at each budget whose parabola has a minimum
    that counts, its N and loss. Points of no budget, but of as much C, are left out with the largest, so that
    what is predicted lies beyond what was fitted. Tables without budgets are cut into bands of equal width in
    ln C, and have no optima to compare but the best run's loss. Signed errors are relative: predicted over
    true, less one.
    """
    level, levels, banded = _levels(observations)
    if len(levels) < MIN_BUDGETS:
        return Refusal(
            kind="too_few_budgets_left",
            reason=f"the points cover {len(levels)} budgets, and a backtest leaves the largest of at least "
            f"{MIN_BUDGETS} out: another budget would help",
        )
    n_held = 2 if len(levels) >= TWO_FROM else 1
    held = level >= len(levels) - n_held
    held |= (level < 0) & (observations.flops >= observations.flops[held].min())
    training = select(observations, ~held)
    quick = dataclasses.replace(config, n_bootstrap=0)
    answers = {name: _fit(method, training, quick) for name, method in methods.items()}
    return {
        "left_out": [float(levels[index]) for index in range(len(levels) - n_held, len(levels))],
        "banded": banded,
        "n_fitted": int((~held).sum()),
        "n_left_out": int(held.sum()),
        "largest_fitted_flops": float(observations.flops[~held].max()),
        "methods": {
            name: answer.to_json()
            if isinstance(answer, Refusal)
            else _errors(answer, observations, held, level, levels, banded)
            for name, answer in answers.items()
        },
    }


def select(observations: Observations, rows: npt.NDArray[np.bool_]) -> Observations:
    """The observations at `rows`; budgets without a point are dropped, the FLOP constraint stays."""
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


def _at(values: FloatArray | None, rows: npt.NDArray[np.bool_]) -> FloatArray | None:
    return None if values is None else values[rows]


def _levels(observations: Observations) -> tuple[npt.NDArray[np.int64], FloatArray, bool]:
    """Each point's level (-1 for none), the levels' C, and whether they are bands for want of budgets."""
    if len(observations.budgets):
        return observations.budget, observations.budgets, False
    log_c = np.log(observations.flops)
    edges = np.linspace(log_c.min(), log_c.max(), N_BANDS + 1)
    band = np.clip(np.searchsorted(edges, log_c, side="right") - 1, 0, N_BANDS - 1)
    counts = np.bincount(band, minlength=N_BANDS)
    usable = np.flatnonzero(counts >= MIN_PER_BAND)
    level = np.full(len(band), -1, dtype=np.int64)
    for index, number in enumerate(usable):
        level[band == number] = index
    level[band > (usable[-1] if len(usable) else -1)] = len(usable) - 1
    return level, np.exp(0.5 * (edges[usable] + edges[usable + 1])), True


def _fit(method: Method, observations: Observations, config: FitConfig) -> Law | Refusal:
    try:
        return method(observations, config)
    except RefusedError as refused:
        return refused.refusal


def _errors(
    law: Law,
    observations: Observations,
    held: npt.NDArray[np.bool_],
    level: npt.NDArray[np.int64],
    levels: FloatArray,
    banded: bool,
) -> dict[str, Any]:
    """Errors of one law on the held-out points and, at budgets, on their optima."""
    document: dict[str, Any] = {"loss_rms_error": None, "loss_mean_error": None, "budgets": []}
    loss = getattr(law, "loss", None)
    if loss is not None:
        predicted = loss(*(getattr(observations, name)[held] for name in _arguments(law)))
        errors = np.asarray(predicted) / observations.loss[held] - 1.0
        document["loss_rms_error"] = math.sqrt(float((errors**2).mean()))
        document["loss_mean_error"] = float(errors.mean())
    for index in np.unique(level[held & (level >= 0)]).tolist():
        document["budgets"].append(
            _band_error(law, observations, level == index)
            if banded
            else _optimum_error(law, observations, index, float(levels[index]))
        )
    return document


def _arguments(law: Law) -> Sequence[str]:
    """The columns that the law's loss is a function of."""
    n_params = (
        "n_params_non_embedding" if getattr(law, "counting", "total") == "non_embedding" else "n_params"
    )
    unique = ("n_tokens_unique",) if hasattr(law, "n_tokens_unique") else ()
    return (n_params, "n_tokens", *unique)


def _band_error(law: Law, observations: Observations, rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The predicted loss of the optimum against the best run of a band, at that run's own C."""
    best = np.flatnonzero(rows)[int(np.argmin(observations.loss[rows]))]
    flops, loss = float(observations.flops[best]), float(observations.loss[best])
    told = law.loss_opt(flops)
    return {"flops": flops, "loss_of_best_run": loss, "loss_opt": told, "loss_opt_error": told / loss - 1.0}


def _optimum_error(law: Law, observations: Observations, index: int, flops_budget: float) -> dict[str, Any]:
    """One budget's predicted optimum against the minimum of its own parabola."""
    truth = fit_budget(observations, index)
    told: dict[str, Any] = {
        "flops": truth.flops,
        "flops_budget": flops_budget,
        "status": truth.status,
        "n_params_opt": law.n_params_opt(truth.flops),
        "loss_opt": law.loss_opt(truth.flops),
    }
    if truth.n_params_opt is None or truth.loss_opt is None:
        best = float(observations.loss[observations.budget == index].min())
        return {**told, "loss_of_best_run": best, "loss_opt_error": told["loss_opt"] / best - 1.0}
    return {
        **told,
        "true_n_params_opt": truth.n_params_opt,
        "true_loss_opt": truth.loss_opt,
        "n_params_opt_error": told["n_params_opt"] / truth.n_params_opt - 1.0,
        "loss_opt_error": told["loss_opt"] / truth.loss_opt - 1.0,
    }
