"""Exponents of one family of models under the choices by which Kaplan's and Chinchilla's laws differ.

The choices are those by which Pearce & Song 2024 and Porian et al. 2024 explain the difference: counting of
N and C, one learning rate or one for each run, a schedule that ends with each run or one that is read before
its end, and an irreducible loss or none.

Legend: N parameters, D tokens, C training FLOPs, f FLOPs per token.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scripts.evidence.studies import FEW_DRAWS, STUDIES, Study, table, validation_keys
from sweep.fit import fit
from sweep.fit.checks.reconcile import ReconciledRow
from sweep.fit.refusals import Refusal
from sweep.records import Point

FloatArray = npt.NDArray[np.float64]

CURVES = "one_schedule"
"""Study with training curves of sizes that all have the same tokens and schedule."""
READ_AT = (2.5e10, 3.54e10, 5e10, 7.07e10, 1e11)  # exact FLOPs
READ_AT_KAPLAN = (4e9, 8e9, 1.6e10, 3.2e10)  # Kaplan's FLOPs, of about the same runs
WARMUP = 0.1  # share of the run during which the loss says little about a model
CONSISTENT = (("total", "exact"), ("non_embedding", "kaplan"))
"""Countings of N and C that belong together: Chinchilla's and Kaplan's."""
TUNED = "matched schedules, tuned rate"
ISOFLOP = replace(FEW_DRAWS, methods=("isoflop",))


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponent:
    """The exponent of N_opt under one set of choices."""

    runs: str  # schedule and learning rate
    method: str
    n_params: str  # counting of N
    flops: str  # counting of C
    a: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """Training curve of one size."""

    n_params: float
    n_params_non_embedding: float
    flops_per_token: float
    n_tokens: FloatArray  # (k,) in the middle of the steps of a record
    loss: FloatArray  # (k,) of training, nats per token

    def loss_at(self, n_tokens: float) -> float | None:
        """Return the loss after some tokens; None within the warmup or beyond the end."""
        if not self.n_tokens[-1] * WARMUP <= n_tokens <= self.n_tokens[-1]:
            return None
        return float(np.interp(np.log(n_tokens), np.log(self.n_tokens), self.loss))


def read_curves() -> list[Curve]:
    """Return the training curves by size."""
    with (STUDIES[CURVES].directory / "curves.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [
        _curve([line for line in lines if line["name"] == name])
        for name in dict.fromkeys(line["name"] for line in lines)
    ]


def _curve(lines: Sequence[dict[str, str]]) -> Curve:
    tokens = np.array([float(line["n_tokens"]) for line in lines])
    before = np.concatenate([[0.0], tokens[:-1]])
    last = lines[-1]
    return Curve(
        n_params=float(last["n_params"]),
        n_params_non_embedding=float(last["n_params_non_embedding"]),
        flops_per_token=float(last["flops"]) / float(last["n_tokens"]),
        n_tokens=(tokens + before) / 2,
        loss=np.array([float(line["train_loss"]) for line in lines]),
    )


def read_points(curves: Sequence[Curve], budgets: Sequence[float], *, kaplan: bool) -> list[Point]:
    """Return the losses of every size where its curve reaches each budget; N and C in Kaplan's counting."""
    found = []
    for budget in budgets:
        for curve in curves:
            per_token = 6 * curve.n_params_non_embedding if kaplan else curve.flops_per_token
            loss = curve.loss_at(budget / per_token)
            if loss is not None:
                found.append(
                    Point(
                        n_params=curve.n_params_non_embedding if kaplan else curve.n_params,
                        n_tokens=budget / per_token,
                        flops=budget,
                        flops_budget=budget,
                        loss=loss,
                    )
                )
    return found


def exponents() -> Iterator[Exponent]:
    """Yield the exponents under every set of choices that the reference sweeps allow."""
    yield from _of_study(STUDIES["cpu_stdlib"], TUNED)
    if (STUDIES["fixed_lr"].directory / "points.csv").exists():
        yield from _of_study(STUDIES["fixed_lr"], "matched schedules, one rate and batch")
    if (STUDIES[CURVES].directory / "curves.csv").exists():
        curves = read_curves()
        for kaplan, budgets in ((False, READ_AT), (True, READ_AT_KAPLAN)):
            law = fit(read_points(curves, budgets, kaplan=kaplan), ISOFLOP).methods["isoflop"]
            if not isinstance(law, Refusal):
                yield Exponent(
                    runs="one schedule, read before its end",
                    method="isoflop",
                    n_params="non_embedding" if kaplan else "total",
                    flops="kaplan" if kaplan else "exact",
                    a=law.constants["a"],
                    interval=law.ci["a"],
                )


def _of_study(study: Study, runs: str) -> Iterator[Exponent]:
    tested = validation_keys(study)
    points = [
        point
        for point in table(study).points
        if point.run_key not in tested and (point.flops or 0.0) < 1.01 * READ_AT[-1]
    ]
    fitted = fit(points, ISOFLOP, reconcile=True)
    law = fitted.laws["isoflop"]
    assert fitted.reconcile is not None
    for row in fitted.reconcile.rows:
        kind = row.n_params, row.flops
        if row.a is None or (row.method != "isoflop" and kind not in CONSISTENT):
            continue
        own = row.method == "isoflop" and row.n_params == "total"
        yield Exponent(
            runs=runs,
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
