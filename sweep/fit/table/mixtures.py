"""Columns that tell apart the runs of one cell, where their losses scatter more than replicates do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.fit.refusals import Refusal
from sweep.fit.table.numbers import is_missing

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WIDE_NOISE = 0.03  # of ln L: seeds of one small model differ by less
EXPLAINED = 0.25  # share of the variance within cells that a column may leave if it explains the scatter
BY_CHANCE = 1e-3  # p of the F test that a column explains no more than labels at random
MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A column with several values inside cells."""

    name: str
    values: tuple[str, ...]
    remaining: float  # share of the variance within cells that is left once its values have their own means
    p: float  # of as small a share by chance

    @property
    def explains(self) -> bool:
        """True if the scatter is this column's."""
        return self.remaining <= EXPLAINED and self.p < BY_CHANCE


def mixture(
    cell: IntArray, log_loss: FloatArray, scatter: float, extras: Mapping[str, Sequence[Any]]
) -> Refusal | str | None:
    """Return a refusal if a column explains the scatter of `log_loss` within cells, else a warning or None.

    `cell` is the index of each row's cell of equal N and D, `scatter` the pooled standard deviation within
    cells; `extras` are the columns that are no field of a point.
    """
    if scatter <= WIDE_NOISE:
        return None
    found = sorted(_differences(cell, log_loss, extras), key=lambda difference: difference.remaining)
    sentence = f"runs of equal N and D differ by {scatter:.0%} in loss"
    if not found:
        return f"{sentence} (standard deviation), more than replicates of one experiment usually do"
    named = ", ".join(_named(difference) for difference in found[:MAX_NAMED])
    first = found[0]
    name = first.name if first.name.isidentifier() else f"`{first.name}`"
    remedy = (
        f"fit one kind alone with --where '{name} == \"{first.values[0]}\"', or the best run of each cell "
    )
    reason = f"{sentence}, and in {named}: {remedy}with --best-of-cell"
    return Refusal(kind="mixed_data", reason=reason) if first.explains else reason


def _named(difference: Difference) -> str:
    shown = ", ".join(difference.values[:MAX_NAMED])
    more = ", …" if len(difference.values) > MAX_NAMED else ""
    return f"column {difference.name!r} ({shown}{more})"


def _differences(
    cell: IntArray, log_loss: FloatArray, extras: Mapping[str, Sequence[Any]]
) -> Iterator[Difference]:
    """Yield the columns that differ inside cells; as a setting, each of their values is in several cells."""
    from scipy.stats import f as fisher  # slow to import, and few tables scatter

    within = _centered(log_loss, cell)
    total, n_dof = float(within @ within), len(cell) - len(np.unique(cell))
    for name, column in extras.items():
        texts = np.array(["" if is_missing(value) else str(value).strip() for value in column])
        values, index = np.unique(texts, return_inverse=True)
        pairs = np.unique(np.stack([index, cell], axis=1), axis=0)
        n_cells = np.bincount(pairs[:, 0], minlength=len(values))
        if len(pairs) > len(np.unique(cell)) and n_cells.min() > 1:
            effect = np.eye(len(values))[index]
            design = np.stack([_centered(part, cell) for part in effect.T], axis=1)
            left = within - design @ np.linalg.lstsq(design, within, rcond=None)[0]
            remaining, n_effects = float(left @ left) / total, int(np.linalg.matrix_rank(design))
            ratio = (1 - remaining) / max(remaining, 1e-12) * (n_dof - n_effects) / n_effects
            p = float(fisher.sf(ratio, n_effects, n_dof - n_effects)) if n_dof > n_effects else 1.0
            yield Difference(name=name, values=tuple(map(str, values)), remaining=remaining, p=p)


def _centered(values: FloatArray, cell: IntArray) -> FloatArray:
    means = np.bincount(cell, weights=values) / np.maximum(np.bincount(cell), 1)
    return np.asarray(values - means[cell], dtype=np.float64)
