"""Whether N, D and C of a table can be counts of the same things: each row says what a token costs.

Legend: N parameters, D tokens, C training FLOPs; f = C / D, which in one way of counting depends on N alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sweep.fit.constraint import MAX_DEGREE, SAME_SIZE, FlopsPerToken
from sweep.fit.refusals import Refusal

FloatArray = npt.NDArray[np.float64]

POSSIBLE = (0.6, 3000.0)
"""Of f / N, 6 where a parameter is multiplied once per token (Kaplan et al. 2020, section 2.1). An embedding
that is only looked up makes it less; attention, and a head that N leaves out, make it more: 1,600 at d 16 and
a vocabulary of 50,000."""
ODD_FACTOR = 2.0
"""A row this far from the others' f was counted otherwise: shapes from flat to deep differ by 1.6 at equal N
(McLeish et al. 2025's released runs)."""
WIDE_SCATTER = 0.05  # of ln f about a smooth curve, root mean square; planned decoders leave 2e-4
MIN_ROWS = 5  # to tell which row is the odd one
N_REWEIGHTINGS = 60


def counting_refusal(
    n_params: FloatArray, flops_per_token: FloatArray, labels: Sequence[str]
) -> Refusal | None:
    """Why no law can be read from these rows: all are in other units, or one is."""
    log_ratio = np.log(flops_per_token / n_params)
    usual = math.exp(float(np.median(log_ratio)))
    if not POSSIBLE[0] <= usual <= POSSIBLE[1]:
        return Refusal(
            kind="units",
            reason=f"C/(N D) is {usual:.3g} at the median, where 6 is usual and {POSSIBLE[0]:g} to "
            f"{POSSIBLE[1]:g} possible: give N, D and C in parameters, tokens and FLOPs, not in millions or "
            f"PF-days",
        )
    away = log_ratio - _smooth(np.log(n_params), log_ratio)
    odd = np.flatnonzero(np.abs(away) > math.log(ODD_FACTOR))
    if not len(odd) or len(log_ratio) < MIN_ROWS:
        return None
    worst = int(odd[np.argmax(np.abs(away[odd]))])
    has, others = math.exp(log_ratio[worst]), math.exp(log_ratio[worst] - away[worst])
    more = f", and {len(odd)} rows in all are off by {ODD_FACTOR:g} times or more" if len(odd) > 1 else ""
    return Refusal(
        kind="mixed_counting",
        reason=f"C/(N D) of {_told(labels[worst])} is {has:.3g} where rows of about its size have "
        f"{others:.3g}{more}: count N, D and C of all rows alike, or leave such rows out",
    )


def counting_warning(
    n_params: FloatArray, flops_per_token: FloatArray, curve: FlopsPerToken, labels: Sequence[str]
) -> tuple[str, ...]:
    """A sentence where C / D is no smooth function of N, as all methods take it to be."""
    away = np.log(flops_per_token) - curve.log_flops(n_params)
    scatter = math.sqrt(float((away**2).mean()))
    if scatter <= WIDE_SCATTER:
        return ()
    worst = int(np.argmax(np.abs(away)))
    return (
        f"C/D scatters by {scatter:.0%} about a smooth function of N, {_told(labels[worst])} by "
        f"{math.expm1(float(away[worst])):+.0%}: shapes that differ at equal N do that, and so do rows that "
        f"count N, D or C differently, which move the optimum by as much without any interval knowing",
    )


def _told(label: str) -> str:
    return label if label.startswith("row ") else f"run {label}"


def _smooth(log_n: FloatArray, values: FloatArray) -> FloatArray:
    """The polynomial in ln N of least absolute deviations at the points: a minority cannot bend it.

    By iteratively reweighted least squares; degree 3, or less where sizes are few.
    """
    n_distinct = 1 + int((np.diff(np.sort(log_n)) > SAME_SIZE).sum())
    degree = min(MAX_DEGREE, max(0, n_distinct - 2), (n_distinct + 1) // 3)
    design = np.vander(log_n - log_n.mean(), degree + 1)
    fitted = np.full_like(values, np.median(values))
    for _ in range(N_REWEIGHTINGS):
        weight = 1 / np.sqrt(np.maximum(np.abs(values - fitted), 1e-6))
        coefficients = np.linalg.lstsq(design * weight[:, None], values * weight, rcond=None)[0]
        fitted = design @ coefficients
    return np.asarray(fitted, dtype=np.float64)
