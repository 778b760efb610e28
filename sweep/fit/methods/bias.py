"""Systematic bias of the isoflop parabolas, estimated from the parametric surface.

Legend: N parameters, D tokens, C training FLOPs, L loss. A parabola in ln N is the second-order term of an
IsoFLOP curve. Its minimum is biased by the width of the grid if alpha != beta, and by an off-centre grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.power_law import power_laws
from sweep.fit.laws.surface import surface_loss, surface_optimum
from sweep.fit.methods.parabola import Parabola, Rows, fit_parabola
from sweep.fit.numerics.estimation import centred, estimate_surface
from sweep.fit.numerics.identifiability import check_design
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParabolaBias:
    """Bias of the power laws through the parabolas' minima: relative in N and D, absolute in exponents."""

    n_params_opt: float
    a: float
    n_tokens_opt: float
    b: float
    corrected: bool  # True if it has been subtracted from the law

    @property
    def shift(self) -> FloatArray:
        """The bias of the power laws' coefficients (7,); zero for the law of the loss."""
        log_n, log_d = np.log1p([self.n_params_opt, self.n_tokens_opt])
        return np.array([log_n, self.a, log_d, self.b, 0.0, 0.0, 0.0])


def parabola_bias(
    observations: Observations, windows: Sequence[Rows], log_center: float, config: FitConfig
) -> ParabolaBias | None:
    """Estimate the bias of power laws through minima of the runs of `windows`; None without a surface.

    Parabolas are fitted to the losses that the surface predicts at the points of the grid, and their minima
    are compared with the surface's optimum at the same C.
    """
    try:
        check_design(observations)
        data = centred(observations)
        theta = data.from_centred(estimate_surface(data, config.huber_delta)[0])
    except RefusedError:
        return None
    minima = [_noise_free_minimum(observations, theta, rows) for rows in windows]
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
        n_params_opt=float(np.expm1(shift[0])),
        a=float(shift[1]),
        n_tokens_opt=float(np.expm1(shift[2])),
        b=float(shift[3]),
        corrected=config.isoflop.bias_corrected,
    )


def _noise_free_minimum(
    observations: Observations, theta: FloatArray, rows: Rows
) -> tuple[float, float, float] | None:
    """Return ln C, ln N and ln D at the minimum of a parabola through the surface's losses, or None."""
    n_params, n_tokens, flops = (
        values[rows] for values in (observations.n_params, observations.n_tokens, observations.flops)
    )
    parabola = fit_parabola(n_params, flops, surface_loss(theta, n_params, n_tokens))
    if parabola.coefficients[2] <= 0:
        return None
    t = Parabola.vertex(np.array(parabola.coefficients))[0]
    log_n, log_c = parabola.center + float(t), float(parabola.log_flops(t))
    return log_c, log_n, log_c - float(observations.flops_per_token.log_flops(np.exp(np.array(log_n))))
