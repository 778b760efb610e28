"""Method `overtraining` (Gadre et al. 2024): loss beyond the compute-optimal ratio of tokens to parameters.

Legend: N parameters, D tokens, M = D/N, C training FLOPs, L loss.

    L(C, M) = E + (a M^eta + b M^-eta) C^-eta

is the surface E + A/N^alpha + B/D^alpha at C = 6 N D, with eta = alpha/2, a = A 6^eta and b = B 6^eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.surface import SurfaceLaw
from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.estimation import SurfaceForm, centred, estimate_surface
from sweep.fit.numerics.identifiability import check_design
from sweep.fit.numerics.lack_of_fit import surface_noise
from sweep.fit.numerics.minimise import NO_NOISE, SQUARES, minimise
from sweep.fit.numerics.resampling import resample_surface, resampling_warnings
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

N_CONSTANTS = 4  # E, A, B and the common exponent
TIED = SurfaceForm(tied=True)
ASSUMES = "alpha = beta, which determines a and b: they are not estimated and have no interval"
DOUBTFUL = 0.05  # p-value of alpha = beta below which a warning is given


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class OvertrainingLaw(SurfaceLaw):
    """The surface with alpha = beta; its intervals assume that equality."""

    @property
    def assumed(self) -> tuple[str, ...]:
        """The exponents a and b, which follow from alpha = beta."""
        return "a", "b"

    def _constants(self, theta: FloatArray) -> dict[str, FloatArray]:
        a, b, e, alpha, _ = np.moveaxis(theta, -1, 0)
        eta = 0.5 * alpha
        return {
            "E": np.exp(e),
            "eta": eta,
            "coefficient_m": np.exp(a + eta * np.log(6.0)),
            "coefficient_inverse_m": np.exp(b + eta * np.log(6.0)),
        }

    def to_json(self) -> dict[str, Any]:
        """Return its entry in fit.json."""
        return {**SurfaceLaw.to_json(self), "assumes": ASSUMES}


def fit_overtraining(
    observations: Observations, config: FitConfig, *, with_checks: bool = True
) -> OvertrainingLaw:
    """Fit the surface with alpha = beta by Huber's loss of ln L. Source: Gadre et al. 2024, eq. 4.

    Without `with_checks` the search is screened, and alpha = beta is not tested.

    Raises:
        RefusedError: as `fit_parametric`.
    """
    check_design(observations, N_CONSTANTS)
    data = centred(observations)
    theta, objective, _ = estimate_surface(data, config.huber_delta, TIED, screened=not with_checks)
    resampled = resample_surface(data, theta, observations.cluster, config, TIED)
    noise, doubts = surface_noise(data, theta, TIED, resampled.residual_sd, observations.replicate_noise)
    return OvertrainingLaw(
        theta=data.from_centred(theta),
        draws=data.from_centred(resampled.draws),
        flops_per_token=observations.flops_per_token,
        flops_range=observations.flops_range,
        objective=objective,
        huber_delta=config.huber_delta,
        confidence=config.confidence,
        noise=noise,
        n_degenerate=resampled.n_degenerate,
        scheme=resampled.scheme,
        warnings=(
            *doubts,
            *(_tie_warning(data, theta) if with_checks else ()),
            *resampling_warnings(observations.cluster, resampled.n_degenerate, config.n_bootstrap),
        ),
    )


def _tie_warning(data: CentredData, theta: FloatArray) -> tuple[str, ...]:
    """Return a warning if an F test on least squares of ln L rejects alpha = beta.

    `theta` (5,) is a centred start with equal exponents. Source: Bates & Watts 1988, section 3.10.
    """
    n_dof = len(data.y) - 5
    tied = float(minimise(data, theta[None], data.y, SQUARES, basis=TIED.basis).objective[0])
    loose = float(minimise(data, theta[None], data.y, SQUARES).objective[0])
    exact = NO_NOISE * len(data.y)
    if n_dof < 1 or tied <= max(loose, exact):
        return ()
    from scipy.special import fdtrc  # scipy is slow to import

    ratio = (tied - loose) / max(loose, exact) * n_dof
    p_value = float(fdtrc(1, n_dof, ratio))
    if p_value >= DOUBTFUL:
        return ()
    return (
        f"the points reject alpha = beta (F(1, {n_dof}) = {ratio:.3g}, p = {p_value:.2g}), which these "
        f"intervals assume: compare with parametric",
    )
