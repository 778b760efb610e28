"""Method `envelope` (Hoffmann's Approach 1): power laws through the points and curve records nobody beats.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.hull import efficient_points
from sweep.fit.laws.base import QUANTITIES, REACHES, Quantity, beside_warning
from sweep.fit.laws.power_law import PowerLaw, power_law_parts
from sweep.fit.methods.envelope_draws import SIMULATED, Records, draw_laws, laws_through
from sweep.fit.numerics.identifiability import check_spread
from sweep.fit.numerics.resampling import degenerate_warning
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_EFFICIENT = 4  # points on the hull: three leave one degree of freedom
MIN_SIZES = 3  # different N among them
MIN_SPAN = 4.0  # largest over smallest C of the hull
CONSTANTS = ("a", "b", "E", "gamma")  # of the power laws, as fit.json names them


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EnvelopeLaw(PowerLaw):
    """Power laws through the efficient points."""

    scheme: str  # how the draws came about
    n_records: int  # points and curve records the hull is drawn around
    efficient: FloatArray  # (m, 4): C, N, D, L of the efficient points

    @property
    def unproved(self) -> tuple[Quantity, ...]:
        """N and D, as the hull's vertices are the grid's own sizes; the loss too unless it was simulated."""
        places: tuple[Quantity, ...] = ("n_params_opt", "n_tokens_opt", "tokens_per_param_opt")
        return places if self.scheme == SIMULATED else QUANTITIES

    def to_json(self) -> dict[str, Any]:
        """Its entry in fit.json."""
        return {
            **self._power_law_json(self.scheme),
            "unproved": [*self.unproved, *CONSTANTS],
            "n_records": self.n_records,
            "efficient": self.efficient.tolist(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EnvelopeLaw:
        """The inverse of `to_json`."""
        efficient = np.array(document["efficient"], dtype=np.float64)
        return cls(
            **power_law_parts(document),
            scheme=document["bootstrap"]["scheme"],
            n_records=document["n_records"],
            efficient=efficient,
        )


def fit_envelope(observations: Observations, config: FitConfig) -> EnvelopeLaw:
    """Power laws, by ordinary least squares in logarithms, through the efficient points.

    Efficient are the vertices of the lower convex hull of (ln C, ln L) along which the loss falls. Records of
    training curves count beside final points, each curve moved by its run's held-out less training loss at
    the end. Intervals: see `envelope_draws`. Source: Hoffmann et al. 2022, section 3.1.

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
        coefficients=laws_through(records, hull, center),
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
    """A sentence where the bias taken off the intervals puts them beside the estimate."""
    told = law.to_json()
    beside = [name for name, (low, high) in told["ci"].items() if not low <= told[name] <= high]
    largest = float(law.efficient[:, 0].max())
    found = (beside_warning(law, reach * largest) for reach in REACHES)
    at_budgets = next((sentences for sentences in found if sentences), ())
    if law.scheme != SIMULATED or not beside:
        return at_budgets
    return (
        f"the interval of {' and '.join(beside)} lies beside the estimate: what hulls get wrong of the "
        f"parametric surface is taken off the interval and not off the estimate, so trust neither here",
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
            f"size{'s' * (n_sizes > 1)} over a factor {span:.3g} in C and "
            f"{MIN_EFFICIENT} points of {MIN_SIZES} sizes over {MIN_SPAN:g} are needed: more budgets, or "
            f"training curves, would help",
        )
