"""Checks that all rows of a table count N, D and C by the same convention.

Legend: N parameters, D tokens, C training FLOPs; f = C / D, which in any one convention depends on N alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sweep.fit.refusals import Refusal
from sweep.fit.table.constraint import MAX_DEGREE, SAME_SIZE, FlopsPerToken, distinct_sizes

FloatArray = npt.NDArray[np.float64]

POSSIBLE = (0.6, 3000.0)
"""Range of f / N: 6 where a parameter is multiplied once per token (Kaplan et al. 2020, section 2.1). An
embedding that is only looked up makes it smaller; attention, and a head that N omits, make it larger: 1,600
at width 16 and a vocabulary of 50,000."""
ODD_FACTOR = 5.0
"""A row whose f differs from the others' by this factor uses another convention: shapes from flat to deep
differ by 1.6 at equal N in the released runs of McLeish et al. 2025, and by more where sequences are long."""
FEW_SIZES, FEW_SIZES_FACTOR = 6, 30.0  # with fewer sizes the curvature of f looks like an odd row
WIDE_SCATTER = 0.05  # of ln f about a smooth curve, root mean square; planned decoders leave 2e-4
MIN_ROWS = 5  # needed to identify the odd row
N_REWEIGHTINGS = 60
N_ENDS, MAX_ROWS = 2, 8  # sizes at either end that are left out in turn, and rows of each


def counting_refusal(
    n_params: FloatArray, flops_per_token: FloatArray, labels: Sequence[str]
) -> Refusal | None:
    """Return a refusal if all rows, or one of them, are in other units, else None."""
    log_ratio = np.log(flops_per_token / n_params)
    median = math.exp(float(np.median(log_ratio)))
    if not POSSIBLE[0] <= median <= POSSIBLE[1]:
        return Refusal(
            kind="units",
            reason=f"the median C/(N D) is {median:.3g}, outside {POSSIBLE[0]:g} to {POSSIBLE[1]:g} "
            f"(6 is usual): give N, D and C in parameters, tokens and FLOPs, not in millions or PF-days, and "
            f"N with embeddings where they are nearly all of the model",
        )
    if len(log_ratio) < MIN_ROWS:
        return None
    log_n = np.log(n_params)
    factor = ODD_FACTOR if len(distinct_sizes(log_n)) >= FEW_SIZES else FEW_SIZES_FACTOR
    away = _away(log_n, log_ratio, math.log(factor))
    odd = np.flatnonzero(np.abs(away) > math.log(factor))
    if not len(odd):
        return None
    worst = int(odd[np.argmax(np.abs(away[odd]))])
    has, others = math.exp(log_ratio[worst]), math.exp(log_ratio[worst] - away[worst])
    more = f" ({len(odd)} rows in all are off by a factor of {factor:g} or more)" if len(odd) > 1 else ""
    return Refusal(
        kind="mixed_counting",
        reason=f"C/(N D) of {_name(labels[worst])} is {has:.3g}, but {others:.3g} for rows of about its "
        f"size{more}: count N, D and C of all rows alike, or remove these rows",
    )


def counting_warning(
    n_params: FloatArray, flops_per_token: FloatArray, curve: FlopsPerToken, labels: Sequence[str]
) -> tuple[str, ...]:
    """Return a warning if C / D is not a smooth function of N, as all methods assume."""
    away = np.log(flops_per_token) - curve.log_flops(n_params)
    scatter = math.sqrt(float((away**2).mean()))
    if scatter <= WIDE_SCATTER:
        return ()
    worst = int(np.argmax(np.abs(away)))
    return (
        f"C/D scatters by {scatter:.0%} about a smooth function of N ({_name(labels[worst])} by "
        f"{math.expm1(float(away[worst])):+.0%}): either shapes differ at equal N, or rows count N, D or C "
        f"differently, which shifts the optimum by as much and is not covered by the intervals",
    )


def _name(label: str) -> str:
    return label if label.startswith("row ") else f"run {label}"


def _away(log_n: FloatArray, values: FloatArray, limit: float) -> FloatArray:
    """Return each value's distance from a smooth curve through the consistent rows.

    Least absolute deviations do not resist an outlier at the end of the range. So where some row is off, the
    rows and sizes at both ends and the worst row are left out in turn, and the best of these curves is used.
    """
    everything = np.ones(len(values), dtype=bool)
    away = values - _smooth(log_n, values, everything)
    if np.abs(away).max() <= limit:
        return away
    sizes = distinct_sizes(log_n)
    ends = [np.flatnonzero(np.abs(log_n - size) <= SAME_SIZE) for size in {*sizes[:N_ENDS], *sizes[-N_ENDS:]}]
    left_out = [rows for rows in ends if 2 * len(rows) < len(values)]
    left_out += [np.array([row]) for rows in ends for row in rows[:MAX_ROWS]]
    best, found = math.inf, away
    for rows in (*left_out, np.array([int(np.argmax(np.abs(away)))])):
        kept = everything.copy()
        kept[rows] = False
        trial = values - _smooth(log_n, values, kept)
        cost = float(np.abs(trial[kept]).mean())
        if cost < best:
            best, found = cost, trial
    return found


def _smooth(log_n: FloatArray, values: FloatArray, kept: npt.NDArray[np.bool_]) -> FloatArray:
    """Evaluate at all N the polynomial in ln N of least absolute deviations from the `kept` values.

    Fitted by iteratively reweighted least squares, of degree 3, or lower where sizes are few.
    """
    n_distinct = len(distinct_sizes(log_n[kept]))
    degree = min(MAX_DEGREE, max(0, n_distinct - 2), (n_distinct + 1) // 3)
    design = np.vander(log_n - log_n.mean(), degree + 1)
    fitted = np.full_like(values, np.median(values[kept]))
    for _ in range(N_REWEIGHTINGS):
        weight = 1 / np.sqrt(np.maximum(np.abs(values - fitted), 1e-6))[kept]
        rows = design[kept] * weight[:, None]
        fitted = design @ np.linalg.lstsq(rows, values[kept] * weight, rcond=None)[0]
    return np.asarray(fitted, dtype=np.float64)
