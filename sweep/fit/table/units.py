"""Refusals of values in other units than parameters, tokens, FLOPs and nats.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.refusals import Refusal
from sweep.fit.table.numbers import FLOP_UNITS, unit_name

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LIMITS = {
    "n_params": 1e3,
    "n_tokens": 64,  # a short sequence
    "flops": 1e6,
}
"""Values below these are no training run: the smallest planned decoders have 1e4 parameters."""
MAX_LOSS = 20.0  # nats: that of a uniform guess among 5e8 tokens
TYPICAL = {"n_params": 1e5, "n_tokens": 1e7}  # a unit that leaves the median below these is too small


@dataclass(frozen=True, kw_only=True, slots=True)
class _Finding:
    """Values of one field in another unit."""

    field: str
    rows: IntArray
    meaning: str  # completes the sentence that begins with the value
    conversion: str  # of the column's name, as --column takes it


def unit_refusal(
    columns: Mapping[str, FloatArray],
    labels: Sequence[str],
    names: Mapping[str, str],
    *,
    vocab_size: float | None = None,
    flops_given: bool = True,
    most: bool = False,
) -> Refusal | None:
    """Return a refusal of values that no training run has, naming the unit they look like; else None.

    `columns` are n_params, n_tokens, flops and loss, arrays of shape (n,) with n > 0; `labels` name the rows,
    `names` those of columns in the table by field. `vocab_size` is that of all points: a loss above
    its logarithm is worse than a uniform guess. `flops_given` is false where C is 6 N D. With `most`, a field
    is refused only if at least half of its values are in another unit.
    """
    findings = [
        finding
        for finding in (
            *_small(columns, names, flops_given),
            *_high_losses(columns["loss"], names, vocab_size),
        )
        if not most or 2 * len(finding.rows) >= len(labels)
    ]
    if not findings:
        return None
    found = "; ".join(_sentence(finding, columns[finding.field], labels, names) for finding in findings)
    if all(2 * len(finding.rows) >= len(labels) for finding in findings):
        remedy = "read it with " + " ".join(f'--column {f.field}="{f.conversion}"' for f in findings)
    else:
        remedy = "convert these rows to the unit of the others, or leave them out with --where"
    return Refusal(kind="units", reason=f"{found}: {remedy}")


def _sentence(finding: _Finding, values: FloatArray, labels: Sequence[str], names: Mapping[str, str]) -> str:
    row, field = int(finding.rows[0]), finding.field
    column = f' (column "{names[field]}")' if names.get(field, field) != field else ""
    more = f" and of {len(finding.rows) - 1} more rows" if len(finding.rows) > 1 else ""
    label = labels[row] if labels[row].startswith("row ") else f"run {labels[row]}"
    return f"{field}={values[row]:.4g}{column} of {label}{more} {finding.meaning}"


def _small(columns: Mapping[str, FloatArray], names: Mapping[str, str], flops_given: bool) -> list[_Finding]:
    factors: dict[str, float] = {}
    findings = []
    for field, limit in LIMITS.items():
        rows = np.flatnonzero(columns[field] < limit)
        if not len(rows) or (field == "flops" and not flops_given):
            continue
        factor = _factor(field, float(np.median(columns[field][rows])), columns, rows, factors)
        factors[field] = factor
        findings.append(
            _Finding(
                field=field,
                rows=rows,
                meaning=f"looks like {unit_name(factor, field)}",
                conversion=f"{names.get(field, field)}*{_written(factor)}",
            )
        )
    return findings


def _factor(
    field: str, value: float, columns: Mapping[str, FloatArray], rows: IntArray, factors: Mapping[str, float]
) -> float:
    """Return the factor that makes `value`, the median of `rows`, that of a training run."""
    if field != "flops":
        return 1e6 if value * 1e6 >= TYPICAL[field] else 1e9
    n_params, n_tokens = (
        float(np.median(columns[name][rows])) * factors.get(name, 1.0) for name in ("n_params", "n_tokens")
    )
    ratio = 6 * n_params * n_tokens / value
    return min((unit for unit in FLOP_UNITS if unit > 1), key=lambda unit: abs(math.log(unit / ratio)))


def _high_losses(loss: FloatArray, names: Mapping[str, str], vocab_size: float | None) -> list[_Finding]:
    name = names.get("loss", "loss")
    rows = np.flatnonzero(loss > MAX_LOSS)
    if len(rows):
        nats = math.log(float(loss[rows[0]]))
        meaning = f"looks like a perplexity: its logarithm is a loss of {nats:.4g} nats"
        return [_Finding(field="loss", rows=rows, meaning=meaning, conversion=f"ln({name})")]
    uniform = math.log(vocab_size) if vocab_size else math.inf
    rows = np.flatnonzero(loss > uniform)
    if 2 * len(rows) < len(loss):  # single runs may end worse than a uniform guess
        return []
    meaning = f"is above ln(vocab_size) = {uniform:.4g} nats, that of a uniform guess, and looks like bits"
    return [_Finding(field="loss", rows=rows, meaning=meaning, conversion=f"{name}*{math.log(2):.6f}")]


def _written(factor: float) -> str:
    return f"{factor:.4g}".replace("e+0", "e").replace("e+", "e")
