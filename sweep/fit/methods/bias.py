"""What the parabolas of `isoflop` get wrong without any noise, as the fitted parametric surface tells it.

Legend: N parameters, D tokens, C training FLOPs, L loss. A parabola in ln N is only the curve's second-order
term: where alpha != beta the grid's width moves its minimum, where the grid is off centre its drift does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.power_law import power_laws
from sweep.fit.methods.parabola import Parabola, fit_parabola
from sweep.fit.numerics.estimation import estimate_surface
from sweep.fit.numerics.identifiability import check_design
from sweep.fit.numerics.minimise import CentredData
from sweep.fit.refusals import RefusedError
from sweep.fit.surface import surface_loss, surface_optimum
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParabolaBias:
    """Parabola less truth, of the power laws' logarithms at flops_center and of their exponents."""

    log_n: float
    a: float
    log_d: float
    b: float
    corrected: bool  # whether it has been taken off the law

    def to_json(self) -> dict[str, Any]:
        """Its entry in fit.json; the levels as relative errors."""
        return {
            "n_params_opt": float(np.expm1(self.log_n)),
            "a": self.a,
            "n_tokens_opt": float(np.expm1(self.log_d)),
            "b": self.b,
            "corrected": self.corrected,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> ParabolaBias | None:
        """The inverse of `to_json`; None stays None."""
        if document is None:
            return None
        return cls(
            log_n=float(np.log1p(document["n_params_opt"])),
            a=document["a"],
            log_d=float(np.log1p(document["n_tokens_opt"])),
            b=document["b"],
            corrected=document["corrected"],
        )

    @property
    def shift(self) -> FloatArray:
        """What to take off the coefficients (7,) of the power laws; the law of the loss is left as it is."""
        return np.array([self.log_n, self.a, self.log_d, self.b, 0.0, 0.0, 0.0])


def parabola_bias(
    observations: Observations, counted: Sequence[int], log_center: float, config: FitConfig
) -> ParabolaBias | None:
    """The bias of power laws through the minima of budgets `counted`; None where no surface can be fitted.

    The fitted surface's own losses at the grid's points are given parabolas, and their minima compared with
    the surface's optimum at the same C.
    """
    try:
        check_design(observations)
        data = CentredData.of(observations.n_params, observations.n_tokens, observations.loss)
        theta = data.from_centred(estimate_surface(data, config.huber_delta)[0])
    except RefusedError:
        return None
    minima = [_noise_free_minimum(observations, theta, index) for index in counted]
    if any(minimum is None for minimum in minima):
        return None
    log_c, log_n, log_d = np.array([minimum for minimum in minima if minimum is not None]).T
    truth = surface_optimum(theta, np.exp(log_c), observations.flops_per_token)
    by_parabola, by_surface = (
        power_laws(log_c - log_center, np.stack([n, d, truth.loss_opt]))
        for n, d in ((log_n, log_d), (np.log(truth.n_params_opt), np.log(truth.n_tokens_opt)))
    )
    shift = by_parabola - by_surface
    return ParabolaBias(
        log_n=float(shift[0]),
        a=float(shift[1]),
        log_d=float(shift[2]),
        b=float(shift[3]),
        corrected=config.isoflop_bias_corrected,
    )


def _noise_free_minimum(
    observations: Observations, theta: FloatArray, index: int
) -> tuple[float, float, float] | None:
    """ln C, ln N and ln D at the minimum of the parabola through the surface's losses; None without one."""
    rows = observations.budget == index
    n_params, n_tokens, flops = (
        values[rows] for values in (observations.n_params, observations.n_tokens, observations.flops)
    )
    parabola = fit_parabola(n_params, flops, surface_loss(theta, n_params, n_tokens))
    if parabola.coefficients[2] <= 0:
        return None
    t = Parabola.vertex(np.array(parabola.coefficients))[0]
    log_n, log_c = parabola.center + float(t), float(parabola.log_flops(t))
    return log_c, log_n, log_c - float(observations.flops_per_token.log_flops(np.exp(np.array(log_n))))
