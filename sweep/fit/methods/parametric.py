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
from sweep.fit.laws.surface_law import SurfaceLaw, surface_parts
from sweep.fit.numerics.estimation import FREE, NO_FLOOR, SurfaceForm, estimate_surface, n_starts
from sweep.fit.numerics.identifiability import NO_SHARE, check_design
from sweep.fit.numerics.lack_of_fit import surface_noise
from sweep.fit.numerics.minimise import CentredData
from sweep.fit.numerics.profile import PROFILE_ASSUMES, Profile, profile_likelihood
from sweep.fit.numerics.resampling import Resampled, degenerate_warning, resample_surface, trunk_warning
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

WORN_EPOCHS = 4.0  # up to here repeated data is nearly as good as new; Muennighoff et al. 2023, section 6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ParametricLaw(SurfaceLaw):
    """The fitted surface with its five constants free, or E kept."""

    n_starts: int
    n_starts_at_optimum: int
    residuals: str  # "log": of ln L; "linear": of L
    fixed_floor: float | None  # E where it is not fitted
    profile: Mapping[str, Profile]  # likelihood intervals, a check on the bootstrap's

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
        """Its entry in fit.json; `from_json` reads it back to the last bit."""
        return {
            **self._surface_json(),
            "loss_function": {
                "form": "sum of Huber",
                "residuals": self.residuals,
                "huber_delta": self.huber_delta,
                "irreducible_loss": self.fixed_floor,
            },
            "profile": {name: profile.to_json() for name, profile in self.profile.items()},
            "profile_assumes": PROFILE_ASSUMES,
            "n_starts": self.n_starts,
            "n_starts_at_optimum": self.n_starts_at_optimum,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ParametricLaw:
        """The inverse of `to_json`."""
        return cls(
            **surface_parts(document),
            n_starts=document["n_starts"],
            n_starts_at_optimum=document["n_starts_at_optimum"],
            residuals=document["loss_function"]["residuals"],
            fixed_floor=document["loss_function"]["irreducible_loss"],
            profile={name: Profile.from_json(entry) for name, entry in document["profile"].items()},
        )


def fit_parametric(observations: Observations, config: FitConfig) -> ParametricLaw:
    """Fit the surface and resample for its intervals.

    The minimum does not depend on units, row order or start. `config.irreducible_loss` keeps E where it is
    given; `config.residuals` chooses ln L or L. Source: Hoffmann et al. 2022, section 3.3.

    Raises:
        RefusedError: too few points, sizes or budgets; N and D collinear; a term vanished; an exponent at its
            bound; no minimum reached; most resamples degenerate.
    """
    check_design(observations)
    data = CentredData.of(observations.n_params, observations.n_tokens, observations.loss)
    form = _form(config)
    theta, objective, n_at_optimum = estimate_surface(data, config.huber_delta, form)
    resampled = resample_surface(data, theta, observations.cluster, config, form)
    return _law(observations, config, data, theta, resampled, objective, n_at_optimum)


def _form(config: FitConfig) -> SurfaceForm:
    if config.irreducible_loss is None:
        floor = None
    else:
        floor = config.irreducible_loss or NO_FLOOR
    return (
        SurfaceForm(floor=floor, residuals=config.residuals) if floor or config.residuals != "log" else FREE
    )


def _law(
    observations: Observations,
    config: FitConfig,
    data: CentredData,
    theta: FloatArray,
    resampled: Resampled,
    objective: float,
    n_at_optimum: int,
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
        residuals=config.residuals,
        fixed_floor=config.irreducible_loss,
        profile=profile_likelihood(data, theta, config.confidence, form) if config.n_bootstrap else {},
        warnings=(
            *doubts,
            *_warnings(data, theta, form),
            *_repetition_warning(observations),
            *trunk_warning(observations.cluster, config.n_bootstrap),
            *degenerate_warning(resampled.n_degenerate, config.n_bootstrap),
        ),
    )


def _repetition_warning(observations: Observations) -> tuple[str, ...]:
    """A sentence where points repeat their data so often that D is not what it seems."""
    if observations.n_tokens_unique is None:
        return ()
    n_worn = int((observations.n_tokens > WORN_EPOCHS * observations.n_tokens_unique).sum())
    if not n_worn:
        return ()
    return (
        f"{n_worn} points read their data more than {WORN_EPOCHS:g} times, which this surface takes for new: "
        f"read data_constrained instead, or set fit.filters.max_epochs={WORN_EPOCHS:g}",
    )


def _warnings(data: CentredData, theta: FloatArray, form: SurfaceForm) -> tuple[str, ...]:
    if form.floor is None and np.exp(theta[2] - data.y.min()) < NO_SHARE:
        return ("E is zero: these points do not show an irreducible loss",)
    return ()
