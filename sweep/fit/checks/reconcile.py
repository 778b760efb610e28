"""Exponents under every counting convention of N and C that the table allows.

Legend: N parameters, D tokens, C training FLOPs, L loss. The comparison is that of Pearce & Song 2024 and of
Porian et al. 2024.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.encoding import fields_to_plain, record_from_plain
from sweep.fit.laws.surface import optimum_exponents
from sweep.fit.methods.isoflop import fit_isoflop
from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.estimation import FREE, NO_FLOOR, SurfaceForm, estimate_surface
from sweep.fit.numerics.identifiability import check_design
from sweep.fit.refusals import Refusal, RefusedError
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

OFFSETS = {"with": FREE, "without": SurfaceForm(floor=NO_FLOOR)}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconciledRow:
    """The exponents of one method under one convention, or a refusal."""

    method: str
    n_params: str  # counting of N: total or non_embedding
    offset: str  # irreducible loss: with, without, or none for a method that has none
    flops: str  # convention of C: exact, 6nd, kaplan or chinchilla; any for a refusal of all
    a: float | None = None
    b: float | None = None
    objective: float | None = None  # of the surface
    refusal: Refusal | None = None

    def to_json(self) -> dict[str, Any]:
        """Return its entry in fit.json, without the values that do not apply."""
        entry = fields_to_plain(self, without=("refusal",))
        refused = {} if self.refusal is None else self.refusal.to_json()
        return {name: value for name, value in entry.items() if value is not None} | refused

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ReconciledRow:
        """Return the inverse of `to_json`."""
        refusal = Refusal.from_json(document) if "refused" in document else None
        row: ReconciledRow = record_from_plain(cls, document)
        return dataclasses.replace(row, refusal=refusal)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciliation:
    """The entry `reconcile` of fit.json."""

    rows: tuple[ReconciledRow, ...]


def reconciled(observations: Observations, config: FitConfig) -> Reconciliation:
    """Refit under every counting of N and convention of C, with and without an irreducible loss.

    The surface is fitted once for each counting of N and offset, and its optimum taken under the FLOPs per
    token of each convention. Another counting of N leaves the budgets as they are, so isoflop is refitted
    under it; another convention of C does not, so only the surface is evaluated under it.
    """
    rows: list[ReconciledRow] = []
    for counting, n_params in _countings(observations).items():
        relabelled = None if n_params is None else dataclasses.replace(observations, n_params=n_params)
        for offset, form in OFFSETS.items():
            rows += _surface_rows(observations, relabelled, counting, offset, form, config)
        rows.append(_isoflop_row(observations, relabelled, counting, config))
    return Reconciliation(rows=tuple(rows))


def _countings(observations: Observations) -> dict[str, FloatArray | None]:
    return {"total": observations.n_params, "non_embedding": observations.n_params_non_embedding}


def _conventions(observations: Observations) -> dict[str, FloatArray | None]:
    """Return C of each point by convention; None if the table lacks a column for it."""
    non_embedding = observations.n_params_non_embedding
    exact = observations.flops if observations.flops_per_token.kind == "exact" else None
    return {
        "exact": exact,
        "6nd": 6.0 * observations.n_params * observations.n_tokens,
        "kaplan": None if non_embedding is None else 6.0 * non_embedding * observations.n_tokens,
        "chinchilla": observations.flops_chinchilla,
    }


def _surface_rows(
    observations: Observations,
    relabelled: Observations | None,
    counting: str,
    offset: str,
    form: SurfaceForm,
    config: FitConfig,
) -> list[ReconciledRow]:
    head = ReconciledRow(method="parametric", n_params=counting, offset=offset, flops="any")
    if relabelled is None:
        return [dataclasses.replace(head, refusal=_missing("n_params_non_embedding"))]
    try:
        check_design(relabelled)
        data = CentredData.of(relabelled.n_params, relabelled.n_tokens, relabelled.loss)
        centred, objective, _ = estimate_surface(data, config.huber_delta, form)
    except RefusedError as refused:
        return [dataclasses.replace(head, refusal=refused.refusal)]
    theta = data.from_centred(centred)
    rows = []
    for convention, flops in _conventions(observations).items():
        row = dataclasses.replace(head, flops=convention)
        if flops is None:
            rows.append(dataclasses.replace(row, refusal=_missing(convention)))
            continue
        curve = FlopsPerToken.through(relabelled.n_params, flops / relabelled.n_tokens)
        a, b = optimum_exponents(theta, curve, (float(flops.min()), float(flops.max())))
        rows.append(dataclasses.replace(row, a=float(a), b=float(b), objective=objective))
    return rows


def _isoflop_row(
    observations: Observations, relabelled: Observations | None, counting: str, config: FitConfig
) -> ReconciledRow:
    """Fit parabolas in the relabelled N at the same budgets."""
    kind = observations.flops_per_token.kind
    head = ReconciledRow(method="isoflop", n_params=counting, offset="none", flops=kind)
    if relabelled is None:
        return dataclasses.replace(head, refusal=_missing("n_params_non_embedding"))
    ratio = relabelled.flops / relabelled.n_tokens
    curve = FlopsPerToken.through(relabelled.n_params, ratio)
    same = observations.flops_per_token if counting == "total" else curve
    quick = dataclasses.replace(config, n_bootstrap=0)
    try:
        law = fit_isoflop(dataclasses.replace(relabelled, flops_per_token=same), quick)
    except RefusedError as refused:
        return dataclasses.replace(head, refusal=refused.refusal)
    a, b = law.exponents
    return dataclasses.replace(head, a=a, b=b)


def _missing(convention: str) -> Refusal:
    column = {"exact": "flops", "chinchilla": "flops_chinchilla"}.get(convention, "n_params_non_embedding")
    return Refusal(kind="no_column", reason=f"the table has no {column} for every point: add the column")
