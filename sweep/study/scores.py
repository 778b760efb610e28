"""Scores of registered predictions against the runs that test them.

Legend: N parameters, D tokens, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist, fmean

import numpy as np

from sweep.records import Point
from sweep.store.run_store import RunStore
from sweep.store.validations import (
    Interval,
    Registration,
    SizeLoss,
    Validation,
    append_validations,
    read_registrations,
)

MAX_LOG_HALF_WIDTH = 20.0  # of the interval of a measured N_opt, against overflow


def score_finished(sweep_dir: Path) -> tuple[Validation, ...]:
    """Score every registered prediction with a result of all its runs and return all scores.

    New scores are added to validations.json. A run that failed is no result: calling `validate` again tries
    it again.
    """
    points = {str(point.run_key): point for point in RunStore(sweep_dir).points().points}
    scored = []
    for registration in read_registrations(sweep_dir):
        if points.keys() >= {run.run_key for run in registration.runs}:
            validation = score(registration, points)
            scored += [] if validation is None else [validation]
    return append_validations(sweep_dir, scored)


def score(registration: Registration, points: Mapping[str, Point]) -> Validation | None:
    """Compare a registered prediction with its runs, `points` by run key; None if no run gave a loss.

    The measured loss is the lowest mean over seeds of a size. N_opt is measured by a parabola of L in ln N
    through the means where a size between others is the best one; its interval follows from the run noise.
    """
    sizes = _size_losses(registration, points)
    if not sizes:
        return None
    best = min(sizes, key=lambda size: size.loss)
    low, high = registration.loss_interval
    n_opt, n_interval = _measured_optimum(sizes, registration)
    inside = None
    if n_opt is not None:
        measured = n_interval or (n_opt, n_opt)
        predicted = registration.n_params_opt_interval
        inside = measured[0] <= predicted[1] and predicted[0] <= measured[1]
    return Validation(
        registration=registration,
        sha256=registration.sha256,
        scored_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        sizes=sizes,
        loss=best.loss,
        n_params=best.n_params,
        n_tokens=best.n_tokens,
        loss_error=registration.loss_opt / best.loss - 1.0,
        loss_inside=low <= best.loss <= high,
        n_params_opt=n_opt,
        n_params_opt_interval=n_interval,
        n_params_opt_error=None if n_opt is None else registration.n_params_opt / n_opt - 1.0,
        n_params_opt_inside=inside,
    )


def _size_losses(registration: Registration, points: Mapping[str, Point]) -> tuple[SizeLoss, ...]:
    losses: dict[int, list[float]] = {}
    tokens: dict[int, int] = {}
    for run in registration.runs:
        point = points.get(run.run_key)
        if point is not None and point.loss is not None:
            losses.setdefault(run.n_params, []).append(point.loss)
            tokens[run.n_params] = run.n_tokens
    return tuple(
        SizeLoss(n_params=n, n_tokens=tokens[n], n_runs=len(values), loss=fmean(values))
        for n, values in sorted(losses.items())
    )


def _measured_optimum(
    sizes: Sequence[SizeLoss], registration: Registration
) -> tuple[float | None, Interval | None]:
    """Return the minimum of a parabola in ln N with its interval; None if the sizes do not bracket it.

    The interval is by the delta method, with the registered run noise.
    """
    best = min(range(len(sizes)), key=lambda index: sizes[index].loss)
    if not 0 < best < len(sizes) - 1:
        return None, None
    log_n = np.log([size.n_params for size in sizes])
    centered = log_n - log_n[best]
    design = np.vander(centered, 3, increasing=True)
    weight = np.sqrt([size.n_runs for size in sizes])[:, None]
    inverse = np.linalg.pinv(design * weight)
    _, slope, curvature = inverse @ (weight[:, 0] * np.array([size.loss for size in sizes]))
    position = -slope / (2.0 * curvature)
    n_opt = math.exp(log_n[best] + position)
    if registration.run_noise_sd is None:
        return n_opt, None
    gradient = np.array([0.0, -1.0 / (2.0 * curvature), slope / (2.0 * curvature**2)])
    sd = registration.run_noise_sd * sizes[best].loss
    half = NormalDist().inv_cdf(0.5 + registration.confidence / 2) * sd * math.hypot(*(gradient @ inverse))
    half = min(half, MAX_LOG_HALF_WIDTH)
    return n_opt, (n_opt * math.exp(-half), n_opt * math.exp(half))
