"""Method `envelope` (Hoffmann's Approach 1): power laws through the efficient points and curve records.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.base import QUANTITIES, REACHES, Quantity, coverage_warning
from sweep.fit.laws.power_law import CONSTANTS, PowerLaw
from sweep.fit.methods.envelope_draws import SIMULATED, Records, draw_laws, efficient_points, laws_through
from sweep.fit.numerics.identifiability import check_spread
from sweep.fit.numerics.resampling import degenerate_warning
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_EFFICIENT = 4  # points on the hull: three leave a single degree of freedom
MIN_SIZES = 3  # different N among them
MIN_SPAN = 4.0  # largest over smallest C of the hull


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class EnvelopeLaw(PowerLaw):
    """Power laws through the efficient points."""

    n_records: int  # points and curve records from which the hull is taken
    efficient: FloatArray  # (m, 4): C, N, D, L of the efficient points

    @property
    def unproved(self) -> tuple[Quantity, ...]:
        """N, D and D/N, since vertices of the hull are sizes of the grid; the loss too unless simulated."""
        places: tuple[Quantity, ...] = ("n_params_opt", "n_tokens_opt", "tokens_per_param_opt")
        return places if self.scheme == SIMULATED else QUANTITIES

    @property
    def unproved_constants(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(CONSTANTS)


def fit_envelope(observations: Observations, config: FitConfig) -> EnvelopeLaw:
    """Fit power laws through the efficient points by ordinary least squares in logarithms.

    The efficient points are the vertices of the lower convex hull of (ln C, ln L) along which the loss falls.
    Records of training curves count along with final points; each curve is shifted by its run's final
    held-out loss less training loss. Intervals: see `envelope_draws`. Source: Hoffmann et al. 2022, section
    3.1.

    Raises:
        RefusedError: N and D collinear, too few efficient points or sizes, or a hull over too little C.
    """
    records = _records(observations)
    hull = efficient_points(records.log_c, records.log_loss)
    _check_hull(records, hull)
    check_spread(records.log_n, records.log_d)
    center = float(records.log_c[hull].mean())
    drawn = draw_laws(observations, records, hull, center, config)
    n_degenerate = config.n_bootstrap - len(drawn.draws) if len(drawn.draws) else 0
    columns = (records.log_c, records.log_n, records.log_d, records.log_loss)
    law = EnvelopeLaw(
        theta=laws_through(records, hull, center),
        draws=drawn.draws,
        flops_center=math.exp(center),
        flops_per_token=observations.flops_per_token,
        confidence=config.confidence,
        noise=observations.replicate_noise or drawn.noise,
        n_degenerate=n_degenerate,
        warnings=(*drawn.warnings, *degenerate_warning(n_degenerate, config.n_bootstrap)),
        scheme=drawn.scheme,
        n_records=len(records.log_c),
        efficient=np.exp(np.stack([column[hull] for column in columns], axis=1)),
    )
    return dataclasses.replace(law, warnings=(*law.warnings, *bias_warning(law)))


def bias_warning(law: EnvelopeLaw) -> tuple[str, ...]:
    """Return a warning if the bias subtracted from the intervals moves them away from the estimate."""
    constants = law.constants
    outside = [name for name, (low, high) in law.ci.items() if not low <= constants[name] <= high]
    largest = float(law.efficient[:, 0].max())
    found = (coverage_warning(law, reach * largest) for reach in REACHES)
    at_budgets = next((sentences for sentences in found if sentences), ())
    if law.scheme != SIMULATED or not outside:
        return at_budgets
    return (
        f"the interval of {' and '.join(outside)} does not contain the estimate: the bias of hulls, as "
        f"estimated from the parametric surface, is subtracted from the intervals and not from the estimate; "
        f"use neither here",
        *at_budgets,
    )


def _records(observations: Observations) -> Records:
    curves = observations.curves
    columns = {
        "log_c": [np.log(observations.flops), *(np.log(curve.flops) for curve in curves)],
        "log_n": [
            np.log(observations.n_params),
            *(np.full(len(curve.loss), math.log(curve.n_params)) for curve in curves),
        ],
        "log_d": [np.log(observations.n_tokens), *(np.log(curve.n_tokens) for curve in curves)],
        "log_loss": [
            np.log(observations.loss),
            *(np.log(np.maximum(curve.loss + curve.heldout_gap, 1e-9)) for curve in curves),
        ],
        "cluster": [
            observations.cluster,
            *(np.full(len(curve.loss), curve.cluster, dtype=np.int64) for curve in curves),
        ],
    }
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    order = np.lexsort((joined["log_loss"], joined["log_c"]))
    return Records(**{name: values[order] for name, values in joined.items()})


def _check_hull(records: Records, hull: IntArray) -> None:
    n_sizes = len(np.unique(records.log_n[hull]))
    span = math.exp(float(np.ptp(records.log_c[hull])))
    if len(hull) < MIN_EFFICIENT or n_sizes < MIN_SIZES or span < MIN_SPAN:
        raise RefusedError(
            "too_few_points",
            f"the hull has {len(hull)} efficient point{'s' * (len(hull) > 1)} of {n_sizes} "
            f"size{'s' * (n_sizes > 1)} over a factor {span:.3g} in C; "
            f"{MIN_EFFICIENT} points of {MIN_SIZES} sizes over a factor {MIN_SPAN:g} are needed: add "
            f"budgets, or training curves",
        )
