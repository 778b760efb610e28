"""Method `data_constrained` (Muennighoff et al. 2023): the loss of training on repeated epochs.

Legend: N parameters, D tokens, U unique tokens, C training FLOPs, L loss; theta as in
`sweep.fit.laws.repetition`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.catalogue import published_surface
from sweep.fit.laws.repetition import (
    DataConstrainedLaw,
    RepetitionProfile,
    repeated_log_loss,
    repeated_slopes,
)
from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.estimation import estimate_surface
from sweep.fit.numerics.lack_of_fit import judged_noise
from sweep.fit.numerics.minimise import FunctionModel, minimise, polish
from sweep.fit.numerics.resampling import resample_model, resampling_warnings
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations, RunNoise

FloatArray = npt.NDArray[np.float64]

MIN_REPEATED, REPEATED = 6, 1.01  # points, and D/U above which a point counts as repeated
START_R = (0.5, 2.0, 8.0, 30.0, 120.0)  # of R_D* and of R_N*, all pairs
PROFILE_R_D = tuple(float(r) for r in np.geomspace(1.0, 3000.0, 24))
FLAT_DECREASE = 0.01  # relative increase of the objective within which values of R_D* fit equally well


def fit_data_constrained(observations: Observations, config: FitConfig) -> DataConstrainedLaw:
    """Fit R_D* and R_N* by Huber's loss of ln L, with the surface fitted jointly or kept at a published one.

    Minimised from a grid of starts; the direction along R_D*, which is often flat, is reported as a profile.
    Source: Muennighoff et al. 2023, section 3 and appendix A.

    Raises:
        RefusedError: no n_tokens_unique, too few repeated points, or too few points for the surface.
    """
    repeated, unique = _check_repetition(observations)
    logs = [np.log(values) for values in (observations.n_params, observations.n_tokens, unique)]
    log_loss = np.log(observations.loss)
    base = _base(observations, config)
    free = list(range(5, 7)) if config.data_constrained.base else list(range(7))
    origin = np.concatenate([base, np.zeros(2)])
    model = _model(origin, free, logs)
    start = _starts(origin, free)
    solution = minimise(model, start, log_loss, config.huber_delta)
    best = int(np.argmin(solution.objective))
    found, objective = polish(model, solution.theta[best], log_loss, config.huber_delta)
    profile = _profile(origin, free, logs, log_loss, config.huber_delta, found)
    resampled = resample_model(model, found, log_loss, observations.cluster, config, _usable)
    theta = _complete(origin, free, found[None])[0]
    identified = _is_identified(profile, objective)
    residuals = RunNoise(sd=resampled.residual_sd, n_dof=len(log_loss) - len(start[0]), source="residuals")
    noise, doubts = judged_noise(residuals, observations.replicate_noise)
    return DataConstrainedLaw(
        theta=theta,
        draws=_complete(origin, free, resampled.draws),
        base=config.data_constrained.base,
        n_tokens_unique=float(unique.max()),
        flops_per_token=observations.flops_per_token,
        profile=RepetitionProfile(rows=profile),
        identified=identified,
        objective=objective,
        huber_delta=config.huber_delta,
        r_squared=_r_squared(observations.loss, np.exp(model.predict(found[None])[0])),
        n_repeated=repeated,
        confidence=config.confidence,
        noise=noise,
        n_degenerate=resampled.n_degenerate,
        scheme=resampled.scheme,
        warnings=(
            *doubts,
            *(() if identified else (_flat_warning(profile),)),
            *resampling_warnings(observations.cluster, resampled.n_degenerate, config.n_bootstrap),
        ),
    )


def _r_squared(loss: FloatArray, fitted: FloatArray) -> float:
    residual, spread = loss - fitted, loss - loss.mean()
    return float(1 - (residual @ residual) / (spread @ spread))


def _check_repetition(observations: Observations) -> tuple[int, FloatArray]:
    """Return the number of points that repeat data, and U of all points.

    Raises:
        RefusedError: no n_tokens_unique, or too few repeated points.
    """
    if observations.n_tokens_unique is None:
        raise RefusedError(
            "no_repetition",
            "the number of unique tokens is not known for every point: add a column n_tokens_unique to the "
            "table, or name the column that holds it",
        )
    repeated = int((observations.n_tokens / observations.n_tokens_unique > REPEATED).sum())
    if repeated < MIN_REPEATED:
        raise RefusedError(
            "no_repetition",
            f"{repeated} points repeat data and {MIN_REPEATED} are needed: add runs of several epochs",
        )
    return repeated, observations.n_tokens_unique


def _base(observations: Observations, config: FitConfig) -> FloatArray:
    """Return theta (5,) of the surface without repetition: a published one, or the start of a joint fit."""
    if config.data_constrained.base is not None:
        return published_surface(config.data_constrained.base)
    columns = (observations.n_params, observations.n_tokens, observations.loss)
    if len(observations) < 12:
        raise RefusedError(
            "too_few_points",
            f"{len(observations)} points for 7 parameters, at least 12 are needed: add runs, or keep a "
            f"published surface with fit.data_constrained.base=muennighoff_2023",
        )
    unique = observations.n_tokens_unique
    fresh = np.ones(len(observations), bool) if unique is None else observations.n_tokens <= REPEATED * unique
    chosen = fresh if fresh.sum() >= 8 else np.ones(len(observations), bool)
    data = CentredData.of(*(column[chosen] for column in columns))
    return data.from_centred(estimate_surface(data, config.huber_delta)[0])


def _complete(origin: FloatArray, free: list[int], values: FloatArray) -> FloatArray:
    """Return theta (k, 7) with its free components set to `values` (k, p)."""
    theta = np.repeat(origin[None], len(values), axis=0)
    theta[:, free] = values
    return theta


def _model(origin: FloatArray, free: list[int], logs: list[FloatArray]) -> FunctionModel:
    def predict(values: FloatArray) -> FloatArray:
        return repeated_log_loss(_complete(origin, free, values), *logs)

    def jacobian(values: FloatArray) -> FloatArray:
        slopes = repeated_slopes(_complete(origin, free, values), *logs)
        return np.nan_to_num(slopes[:, :, free], posinf=0.0, neginf=0.0)

    return FunctionModel(predict, jacobian)


def _starts(origin: FloatArray, free: list[int]) -> FloatArray:
    pairs = [(np.log(r_d), np.log(r_n)) for r_d in START_R for r_n in START_R]
    return np.array([np.concatenate([origin[:5], pair])[free] for pair in pairs])


def _usable(values: FloatArray) -> npt.NDArray[np.bool_]:
    """Return a mask of draws with a finite surface and positive exponents; R* may diverge."""
    good = np.isfinite(values).all(axis=1)
    return np.asarray(good & ((values[:, 3:5] > 0.01).all(axis=1) if values.shape[1] == 7 else good))


def _profile(
    origin: FloatArray,
    free: list[int],
    logs: list[FloatArray],
    log_loss: FloatArray,
    delta: float,
    best: FloatArray,
) -> FloatArray:
    """Return R_D*, the best R_N* for it, and the objective, shape (k, 3)."""
    rows = []
    for r_d in PROFILE_R_D:
        held = origin.copy()
        held[5] = np.log(r_d)
        others = [index for index in free if index != 5]
        model = _model(held, others, logs)
        near = np.delete(best, -2)
        starts = np.repeat(near[None], len(START_R), axis=0)
        starts[:, -1] = np.log(START_R)
        solution = minimise(model, starts, log_loss, delta)
        found = int(np.argmin(solution.objective))
        rows.append([r_d, float(np.exp(solution.theta[found, -1])), float(solution.objective[found])])
    return np.array(rows)


def _is_identified(profile: FloatArray, objective: float) -> bool:
    """Return True if the profile rises by more than FLAT_DECREASE on both sides within its range."""
    least = max(objective, float(profile[:, 2].min()))
    good = profile[:, 2] <= least * (1 + FLAT_DECREASE)
    return bool(good.any() and not good[0] and not good[-1])


def _flat_warning(profile: FloatArray) -> str:
    good = profile[profile[:, 2] <= profile[:, 2].min() * (1 + FLAT_DECREASE), 0]
    return (
        f"R_D* is poorly identified: from {good.min():.3g} to {good.max():.3g} the objective is within "
        f"{FLAT_DECREASE:.0%} of its minimum; use the profile instead of the estimate"
    )
