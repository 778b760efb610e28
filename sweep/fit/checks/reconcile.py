"""How the exponent moves with the counting: the same points refitted under every convention they allow.

Legend: N parameters, D tokens, C training FLOPs, L loss. The question is that of Pearce & Song 2024 and of
Porian et al. 2024.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.methods.isoflop import fit_isoflop
from sweep.fit.numerics.estimation import FREE, NO_FLOOR, SurfaceForm, estimate_surface
from sweep.fit.numerics.identifiability import check_design
from sweep.fit.numerics.minimise import CentredData
from sweep.fit.refusals import Refusal, RefusedError
from sweep.fit.surface import optimum_exponents
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

OFFSETS = {"with": FREE, "without": SurfaceForm(floor=NO_FLOOR)}


def reconciled(observations: Observations, config: FitConfig) -> dict[str, Any]:
    """The `reconcile` entry of fit.json: a row for each counting of N, convention of C, offset and method.

    The surface is fitted once for each N and offset, and its optimum taken under each convention's own FLOPs
    per token. Relabelling N keeps the points of equal budget together, so isoflop is refitted under it; other
    FLOPs do not, so they are answered by the surface alone.
    """
    rows: list[dict[str, Any]] = []
    for counting, n_params in _countings(observations).items():
        relabelled = None if n_params is None else dataclasses.replace(observations, n_params=n_params)
        for offset, form in OFFSETS.items():
            rows += _surface_rows(observations, relabelled, counting, offset, form, config)
        rows.append(_isoflop_row(observations, relabelled, counting, config))
    return {"rows": rows}


def _countings(observations: Observations) -> dict[str, FloatArray | None]:
    return {"total": observations.n_params, "non_embedding": observations.n_params_non_embedding}


def _conventions(observations: Observations) -> dict[str, FloatArray | None]:
    """C of each point by convention; None where the table lacks what it takes."""
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
) -> list[dict[str, Any]]:
    head = {"method": "parametric", "n_params": counting, "offset": offset}
    if relabelled is None:
        return [{**head, "flops": "any", **_missing("n_params_non_embedding")}]
    try:
        check_design(relabelled)
        data = CentredData.of(relabelled.n_params, relabelled.n_tokens, relabelled.loss)
        centred, objective, _ = estimate_surface(data, config.huber_delta, form)
    except RefusedError as refused:
        return [{**head, "flops": "any", **refused.refusal.to_json()}]
    theta = data.from_centred(centred)
    rows = []
    for convention, flops in _conventions(observations).items():
        row: dict[str, Any] = {**head, "flops": convention}
        if flops is None:
            rows.append({**row, **_missing(convention)})
            continue
        curve = FlopsPerToken.through(relabelled.n_params, flops / relabelled.n_tokens)
        a, b = optimum_exponents(theta, curve, (float(flops.min()), float(flops.max())))
        rows.append({**row, "a": float(a), "b": float(b), "objective": objective})
    return rows


def _isoflop_row(
    observations: Observations, relabelled: Observations | None, counting: str, config: FitConfig
) -> dict[str, Any]:
    """Parabolas in the relabelled N over the same groups of equal budget."""
    head = {
        "method": "isoflop",
        "n_params": counting,
        "offset": "none",
        "flops": observations.flops_per_token.kind,
    }
    if relabelled is None:
        return {**head, **_missing("n_params_non_embedding")}
    ratio = relabelled.flops / relabelled.n_tokens
    curve = FlopsPerToken.through(relabelled.n_params, ratio)
    same = observations.flops_per_token if counting == "total" else curve
    quick = dataclasses.replace(config, n_bootstrap=0)
    try:
        law = fit_isoflop(dataclasses.replace(relabelled, flops_per_token=same), quick)
    except RefusedError as refused:
        return {**head, **refused.refusal.to_json()}
    a, b = (float(law.coefficients[column]) for column in (1, 3))
    return {**head, "a": a, "b": b}


def _missing(what: str) -> dict[str, str]:
    column = {"exact": "flops", "chinchilla": "flops_chinchilla"}.get(what, "n_params_non_embedding")
    return Refusal(
        kind="no_column", reason=f"it needs {column} at every point, and the table lacks it: add the column"
    ).to_json()
