"""Exponents of one family of models under Kaplan's and Chinchilla's counting of parameters and compute.

Pearce & Song 2024 explain the difference between the two published exponents by counting; Porian et al. 2024
by counting, warmup and tuning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from scripts.evidence.studies import FEW_DRAWS, STUDIES, table, validation_keys
from sweep.fit import fit
from sweep.fit.checks.reconcile import ReconciledRow

CONSISTENT = (("total", "exact"), ("non_embedding", "kaplan"))
"""Countings of N and C that belong together: Chinchilla's and Kaplan's."""
ISOFLOP = replace(FEW_DRAWS, methods=("isoflop",))


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponent:
    """The exponent of N_opt under one set of choices."""

    method: str
    n_params: str  # counting of N
    flops: str  # counting of C
    a: float
    interval: tuple[float, float] | None


def exponents() -> Iterator[Exponent]:
    """Yield the exponents of cpu_stdlib under every set of choices."""
    study = STUDIES["cpu_stdlib"]
    tested = validation_keys(study)
    fitted = fit(
        [point for point in table(study).points if point.run_key not in tested], ISOFLOP, reconcile=True
    )
    law = fitted.laws["isoflop"]
    assert fitted.reconcile is not None
    for row in fitted.reconcile.rows:
        kind = row.n_params, row.flops
        if row.a is None or (row.method != "isoflop" and kind not in CONSISTENT):
            continue
        own = row.method == "isoflop" and row.n_params == "total"
        yield Exponent(
            method=_method(row),
            n_params=row.n_params,
            flops=row.flops,
            a=row.a,
            interval=law.ci["a"] if own else None,
        )


def _method(row: ReconciledRow) -> str:
    if row.method == "isoflop":
        return "isoflop"
    return "surface" if row.offset == "with" else "surface without E"
