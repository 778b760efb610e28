"""Points prepared for fitting: exclusions, budgets, the FLOP constraint and run noise.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sweep.config import FilterConfig
from sweep.errors import InputError
from sweep.fit.refusals import Refusal
from sweep.fit.table.budgets import group_budgets
from sweep.fit.table.compatible import common_refusal
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.conventions import counting_refusal, counting_warning
from sweep.fit.table.curves import LossCurve, loss_curves
from sweep.fit.table.filters import NO_FILTERS, AppliedFilter, apply_filters
from sweep.fit.table.mixtures import mixture
from sweep.fit.table.points import Table
from sweep.fit.table.units import unit_refusal
from sweep.records import CurvePoint, Point

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]

MIN_NOISE_DOF = 3  # with fewer replicate degrees of freedom residuals estimate the noise better


@dataclass(frozen=True, kw_only=True, slots=True)
class ExcludedPoint:
    """A point that is not fitted, with the reason."""

    run_key: str  # or name, or row, of a point without a key
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunNoise:
    """Standard deviation of one run's ln L about its expectation."""

    sd: float
    n_dof: int
    source: Literal["replicates", "residuals", "misfit"]  # misfit: residuals with significant lack of fit

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as `from_json` reads them."""
        return {"sd": self.sd, "n_dof": self.n_dof, "source": self.source}

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> RunNoise | None:
        """Read what `to_json` returns; None stays None."""
        return None if document is None else cls(**document)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Observations:
    """The fitted points as arrays of shape (n,), in an order independent of the table's."""

    n_params: FloatArray
    n_tokens: FloatArray
    flops: FloatArray
    loss: FloatArray
    budget: IntArray  # index into `budgets`, -1 for a point outside all of them
    budgets: FloatArray  # FLOPs, ascending: as planned, else the geometric mean of the group
    budgets_as_planned: bool  # from a column, not from gaps in C
    flops_per_token: FlopsPerToken
    cluster: IntArray  # points of one cluster share a trunk and therefore noise
    labels: tuple[str, ...]  # run key, name or row of each point
    n_params_non_embedding: FloatArray | None  # None if some point lacks it, as for the next two
    flops_chinchilla: FloatArray | None
    n_tokens_unique: FloatArray | None
    curves: tuple[LossCurve, ...]  # of fitted points; empty for a table
    replicate_noise: RunNoise | None
    level_se: float | None  # standard error of the common level of the losses, in nats; None: not known
    filters: tuple[AppliedFilter, ...]
    excluded: tuple[ExcludedPoint, ...]
    refusal: Refusal | None  # reason why no method may fit these points
    warnings: tuple[str, ...]  # added to those of every method

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def has_trunks(self) -> bool:
        """True if some points share a trunk."""
        return bool(len(self)) and int(self.cluster.max()) + 1 < len(self)

    def noise_within(self, rows: Rows) -> RunNoise | None:
        """Return the replicate noise among the points selected by a mask of shape (n,)."""
        unique = None if self.n_tokens_unique is None else self.n_tokens_unique[rows]
        return replicate_noise(self.n_params[rows], self.n_tokens[rows], self.loss[rows], unique)

    @property
    def flops_range(self) -> tuple[float, float]:
        """Smallest and largest C of the fitted points."""
        return float(self.flops.min()), float(self.flops.max())


def observe(
    points: Sequence[Point],
    excluded: Mapping[str, str] | None = None,
    *,
    filters: FilterConfig = NO_FILTERS,
    curves: Mapping[str, Sequence[CurvePoint]] | None = None,
    allow_mixed_schedules: bool = False,
) -> Observations:
    """Filter, complete and group `points`; `excluded` maps run keys or names to reasons.

    D or C, if the whole table lacks one, follows from C = 6 N D, and the constraint is then 6nd. `curves`
    maps run keys to training curves.

    Raises:
        InputError: there are no points, or some point lacks N, L, or both D and C.
    """
    if not points:
        raise InputError("no points to fit: give at least one finished run")
    _refuse_optima(points)
    rows = points.rows if isinstance(points, Table) else [f"row {row}" for row in range(1, len(points) + 1)]
    labelled = [(point, point.run_key or point.name or row) for point, row in zip(points, rows, strict=True)]
    reasons = [_reason_left_out(point, excluded or {}) for point, _ in labelled]
    left_out = [
        ExcludedPoint(run_key=label, reason=reason)
        for (_, label), reason in zip(labelled, reasons, strict=True)
        if reason is not None
    ]
    kept = [pair for pair, reason in zip(labelled, reasons, strict=True) if reason is None]
    for point, label in kept:
        for field in ("n_params", "loss", "n_tokens", "flops", "flops_budget"):
            _check_value(getattr(point, field), field, label, needed=field in ("n_params", "loss"))
    kept, dropped, applied = apply_filters(kept, filters)
    left_out += [ExcludedPoint(run_key=label, reason=reason) for label, reason in dropped]
    kept = sorted(kept, key=_sort_key)
    table, curve = _complete(kept)
    planned = table.pop("flops_budget")
    budget, budgets = group_budgets(planned, table["flops"], table["n_params"])
    cluster = _clusters([point for point, _ in kept])
    refusal = common_refusal(*_unzipped(kept), allow_mixed_schedules=allow_mixed_schedules)
    warnings: tuple[str, ...] = ()
    noise = replicate_noise(
        table["n_params"], table["n_tokens"], table["loss"], _optional(kept, "n_tokens_unique")
    )
    names = points.columns if isinstance(points, Table) else {}
    exact = curve.kind == "exact"
    refusal = refusal or _unit_refusal(kept, table, names, flops_given=exact, most=True)
    if refusal is None and exact:
        cost, labels = table["flops"] / table["n_tokens"], [label for _, label in kept]
        refusal = counting_refusal(table["n_params"], cost, labels)
        warnings = counting_warning(table["n_params"], cost, curve, labels)
    refusal = refusal or _unit_refusal(kept, table, names, flops_given=exact)
    if refusal is None and noise is not None and isinstance(points, Table):
        found = _mixture(points, kept, table, noise)
        refusal = found if isinstance(found, Refusal) else None
        warnings += (found,) if isinstance(found, str) else ()
    return Observations(
        **table,
        budget=budget,
        budgets=budgets,
        budgets_as_planned=not np.isnan(planned).all(),
        flops_per_token=curve,
        cluster=cluster,
        labels=tuple(label for _, label in kept),
        n_params_non_embedding=_optional(kept, "n_params_non_embedding"),
        flops_chinchilla=_optional(kept, "flops_chinchilla"),
        n_tokens_unique=_optional(kept, "n_tokens_unique"),
        curves=loss_curves([point for point, _ in kept], cluster, curves or {}),
        replicate_noise=noise,
        level_se=_level_se([point for point, _ in kept]),
        filters=applied,
        excluded=tuple(left_out),
        refusal=refusal,
        warnings=warnings,
    )


def select(observations: Observations, rows: Rows) -> Observations:
    """Return the observations at `rows`; budgets without a point are dropped, the FLOP constraint stays."""
    kept = np.unique(observations.budget[rows])
    kept = kept[kept >= 0]
    renumbered = np.full(len(observations.budgets) + 1, -1)
    renumbered[kept] = np.arange(len(kept))
    clusters, cluster = np.unique(observations.cluster[rows], return_inverse=True)
    position = {int(old): new for new, old in enumerate(clusters)}
    curves = [curve for curve in observations.curves if curve.cluster in position]
    return replace(
        observations,
        n_params=observations.n_params[rows],
        n_tokens=observations.n_tokens[rows],
        flops=observations.flops[rows],
        loss=observations.loss[rows],
        n_params_non_embedding=_at(observations.n_params_non_embedding, rows),
        flops_chinchilla=_at(observations.flops_chinchilla, rows),
        n_tokens_unique=_at(observations.n_tokens_unique, rows),
        budget=renumbered[observations.budget[rows]],
        budgets=observations.budgets[kept],
        cluster=cluster,
        labels=tuple(np.array(observations.labels, dtype=object)[rows]),
        curves=tuple(replace(curve, cluster=position[curve.cluster]) for curve in curves),
    )


def _at(values: FloatArray | None, rows: Rows) -> FloatArray | None:
    return None if values is None else values[rows]


def _refuse_optima(points: Sequence[Point]) -> None:
    if isinstance(points, Table) and points.is_optima:
        raise InputError(
            f"{points.source} holds optima ({', '.join(points.columns)}), not runs with N and loss: their "
            f"power law is given by sweep fit TABLE, and in Python by fit_table"
        )


def _unit_refusal(
    kept: Sequence[tuple[Point, str]],
    table: Mapping[str, FloatArray],
    names: Mapping[str, str],
    *,
    flops_given: bool,
    most: bool = False,
) -> Refusal | None:
    if not kept:
        return None
    vocab_sizes = {point.vocab_size for point, _ in kept}
    return unit_refusal(
        table,
        [label for _, label in kept],
        names,
        vocab_size=vocab_sizes.pop() if len(vocab_sizes) == 1 else None,
        flops_given=flops_given,
        most=most,
    )


def _mixture(
    points: Table, kept: Sequence[tuple[Point, str]], table: Mapping[str, FloatArray], noise: RunNoise
) -> Refusal | str | None:
    """Compare the other columns of a table inside cells of equal N and D."""
    row = {id(point): at for at, point in enumerate(points)}
    rows = [row[id(point)] for point, _ in kept]
    cells = np.stack([table["n_params"], table["n_tokens"]], axis=1)
    cell = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
    extras = {name: [column[at] for at in rows] for name, column in points.extras.items()}
    return mixture(cell, np.log(table["loss"]), noise.sd, extras)


def _unzipped(kept: Sequence[tuple[Point, str]]) -> tuple[list[Point], list[str]]:
    return [point for point, _ in kept], [label for _, label in kept]


def _optional(kept: Sequence[tuple[Point, str]], field: str) -> FloatArray | None:
    """Return a column that only some methods use; None unless every point has it above zero."""
    values = [getattr(point, field) for point, _ in kept]
    if not values or any(value is None or not math.isfinite(value) or value <= 0 for value in values):
        return None
    return np.array(values, dtype=np.float64)


def _level_se(points: Sequence[Point]) -> float | None:
    """Return the median standard error of a held-out loss over held-out documents.

    Runs that are scored on the same windows share this error: it cancels between them, but not in E or in a
    predicted loss on other text. None unless every point has it.
    """
    errors = [point.loss_stderr for point in points if point.loss_stderr is not None]
    return float(np.median(errors)) if points and len(errors) == len(points) else None


def _clusters(points: Sequence[Point]) -> IntArray:
    """Return the cluster index of each point: that of its trunk, or one of its own."""
    names: dict[object, int] = {}
    keys: list[object] = [point.trunk if point.trunk is not None else row for row, point in enumerate(points)]
    return np.array([names.setdefault(key, len(names)) for key in keys], dtype=np.int64)


def _reason_left_out(point: Point, excluded: Mapping[str, str]) -> str | None:
    for key in (point.run_key, point.name):
        if key is not None and key in excluded:
            return excluded[key]
    return "diverged" if point.status == "diverged" else None


def _sort_key(kept: tuple[Point, str]) -> tuple[float, ...]:
    """Return a key that depends on the numbers only, so that sums round alike for any order of rows."""
    point, _ = kept
    return tuple(
        math.inf if value is None else value
        for value in (point.flops, point.n_params, point.n_tokens, point.loss)
    )


def _complete(kept: Sequence[tuple[Point, str]]) -> tuple[dict[str, FloatArray], FlopsPerToken]:
    """Return the columns of the kept points with D and C complete, and the constraint between them."""
    columns = {
        field: np.array([_or_nan(getattr(point, field)) for point, _ in kept])
        for field in ("n_params", "n_tokens", "flops", "loss", "flops_budget")
    }
    n_params, n_tokens, flops = columns["n_params"], columns["n_tokens"], columns["flops"]
    has_tokens, has_flops = ~np.isnan(n_tokens), ~np.isnan(flops)
    if not kept or (has_tokens.all() and has_flops.all()):
        curve = FlopsPerToken.through(n_params, flops / n_tokens) if kept else FlopsPerToken.six_nd()
        return columns, curve
    if has_tokens.all() and not has_flops.any():
        return {**columns, "flops": 6.0 * n_params * n_tokens}, FlopsPerToken.six_nd()
    if has_flops.all() and not has_tokens.any():
        return {**columns, "n_tokens": flops / (6.0 * n_params)}, FlopsPerToken.six_nd()
    label = kept[int(np.flatnonzero(~(has_tokens & has_flops))[0])][1]
    raise InputError(
        f"point {label} lacks n_tokens or flops while others have both: give both for all points, or leave "
        f"one of the two columns out"
    )


def _check_value(value: float | None, field: str, label: str, *, needed: bool) -> None:
    if value is None and not needed:
        return
    if value is None or not math.isfinite(value) or value <= 0:
        raise InputError(
            f"point {label} has {field}={value}, not a finite number above zero: correct it or leave it out"
        )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def replicate_noise(
    n_params: FloatArray, n_tokens: FloatArray, loss: FloatArray, n_tokens_unique: FloatArray | None
) -> RunNoise | None:
    """Return the pooled deviation of ln L within cells of equal N, D and unique tokens, or None.

    None where the cells have fewer than MIN_NOISE_DOF degrees of freedom.
    """
    unique = np.zeros_like(n_params) if n_tokens_unique is None else n_tokens_unique
    cells = np.stack([n_params, n_tokens, unique], axis=1)
    _, cell, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    n_dof = int((counts - 1).sum())
    if n_dof < MIN_NOISE_DOF:
        return None
    log_loss = np.log(loss)
    means = np.bincount(cell.ravel(), weights=log_loss) / counts
    sd = math.sqrt(float(((log_loss - means[cell.ravel()]) ** 2).sum()) / n_dof)
    # Rows given twice are not replicates: their spread is zero.
    return RunNoise(sd=sd, n_dof=n_dof, source="replicates") if sd > 1e-12 else None
