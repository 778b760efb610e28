"""Method `parametric` (Hoffmann's Approach 3): L = E + A/N^alpha + B/D^beta, Huber loss on ln L.

Legend: N parameters, D tokens, C training FLOPs, L loss; theta = (ln A, ln B, ln E, alpha, beta).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.config.fitting import Residuals
from sweep.fit.laws.surface import SurfaceLaw
from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.estimation import FREE, NO_FLOOR, SurfaceForm, centred, estimate_surface, n_starts
from sweep.fit.numerics.identifiability import NO_SHARE, check_design
from sweep.fit.numerics.lack_of_fit import surface_noise
from sweep.fit.numerics.profile import PROFILE_ASSUMES, Profile, profile_likelihood
from sweep.fit.numerics.resampling import Resampled, resample_surface, resampling_warnings
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

MAX_EPOCHS = 4.0  # repeated data is nearly as good as new data up to here; Muennighoff et al. 2023, section 6


@dataclass(frozen=True, kw_only=True, slots=True)
class LossFunction:
    """The objective of the fit."""

    residuals: Residuals  # "log": of ln L; "linear": of L
    huber_delta: float
    irreducible_loss: float | None  # E if it was kept at a value; None if it was fitted
    form: str = "sum of Huber"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class ParametricLaw(SurfaceLaw):
    """The fitted surface with five free constants, or four and a given E."""

    n_starts: int
    n_starts_at_optimum: int
    loss_function: LossFunction
    profile: Mapping[str, Profile]  # profile-likelihood intervals, to compare with the bootstrap's

    def _constants(self, theta: FloatArray) -> dict[str, FloatArray]:
        scales = np.exp(theta[..., :3])
        return {
            "E": np.where(scales[..., 2] <= 10 * NO_FLOOR, 0.0, scales[..., 2]),
            "A": scales[..., 0],
            "B": scales[..., 1],
            "alpha": theta[..., 3],
            "beta": theta[..., 4],
        }

    def to_json(self) -> dict[str, Any]:
        """Return its entry in fit.json."""
        return {**SurfaceLaw.to_json(self), "profile_assumes": PROFILE_ASSUMES}


def fit_parametric(
    observations: Observations, config: FitConfig, *, with_checks: bool = True
) -> ParametricLaw:
    """Fit the surface and resample for its intervals.

    The minimum does not depend on units, row order or start. `config.parametric` sets the residuals (of ln L
    or of L) and, if given, the value at which E is kept. Without `with_checks` the search is screened and the
    profile left out. Source: Hoffmann et al. 2022, section 3.3.

    Raises:
        RefusedError: too few points, sizes or budgets; N and D collinear; a term that vanishes; an exponent
            at its bound; no convergence; most resamples degenerate.
    """
    check_design(observations)
    data = centred(observations)
    form = _form(config)
    theta, objective, n_at_optimum = estimate_surface(
        data, config.huber_delta, form, screened=not with_checks
    )
    resampled = resample_surface(data, theta, observations.cluster, config, form)
    profile = {}
    if with_checks and config.n_bootstrap:
        profile = profile_likelihood(data, theta, config.confidence, form)
    return _law(observations, config, data, theta, resampled, objective, n_at_optimum, profile)


def _form(config: FitConfig) -> SurfaceForm:
    options = config.parametric
    floor = None if options.irreducible_loss is None else options.irreducible_loss or NO_FLOOR
    if floor is None and options.residuals == "log":
        return FREE
    return SurfaceForm(floor=floor, residuals=options.residuals)


def _law(
    observations: Observations,
    config: FitConfig,
    data: CentredData,
    theta: FloatArray,
    resampled: Resampled,
    objective: float,
    n_at_optimum: int,
    profile: Mapping[str, Profile],
) -> ParametricLaw:
    form = _form(config)
    noise, doubts = surface_noise(data, theta, form, resampled.residual_sd, observations.replicate_noise)
    return ParametricLaw(
        theta=data.from_centred(theta),
        draws=data.from_centred(resampled.draws),
        flops_per_token=observations.flops_per_token,
        flops_range=observations.flops_range,
        objective=objective,
        huber_delta=config.huber_delta,
        confidence=config.confidence,
        noise=noise,
        n_starts=n_starts(),
        n_starts_at_optimum=n_at_optimum,
        n_degenerate=resampled.n_degenerate,
        scheme=resampled.scheme,
        loss_function=LossFunction(
            residuals=config.parametric.residuals,
            huber_delta=config.huber_delta,
            irreducible_loss=config.parametric.irreducible_loss,
        ),
        profile=profile,
        warnings=(
            *doubts,
            *_warnings(data, theta, form),
            *_repetition_warning(observations),
            *resampling_warnings(observations.cluster, resampled.n_degenerate, config.n_bootstrap),
        ),
    )


def _repetition_warning(observations: Observations) -> tuple[str, ...]:
    """Return a warning if points repeat their data so often that D overstates its worth."""
    if observations.n_tokens_unique is None:
        return ()
    n_repeated = int((observations.n_tokens > MAX_EPOCHS * observations.n_tokens_unique).sum())
    if not n_repeated:
        return ()
    return (
        f"{n_repeated} points train for more than {MAX_EPOCHS:g} epochs, and this surface counts repeated "
        f"tokens as new: use data_constrained, or set fit.filters.max_epochs={MAX_EPOCHS:g}",
    )


def _warnings(data: CentredData, theta: FloatArray, form: SurfaceForm) -> tuple[str, ...]:
    if form.floor is None and np.exp(theta[2] - data.y.min()) < NO_SHARE:
        return ("E is zero: the points show no irreducible loss",)
    return ()
