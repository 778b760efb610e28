"""Tables of the documentation that are made from the reference sweeps, as lines of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from scripts.evidence.counting import exponents
from scripts.evidence.studies import (
    STUDIES,
    Study,
    arms,
    fit_path,
    table,
    validation_keys,
    validations,
)
from sweep.config import FitConfig, SyntheticData
from sweep.data.sources.synthetic import loss_floor
from sweep.errors import InputError
from sweep.fit import Fit, Law, Table, fit, read_fit
from sweep.records import Point
from sweep.study.compare import compare_sources

ANSWER = FitConfig(confidence=0.9)
KNOWN = {"n_symbols": 64, "n_documents": 12000, "document_symbols": 1023, "holdout_frac": 0.05}
KNOWN_SEQ_LEN = 32


def rows(header: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Return a table of Markdown."""
    return [_row(header), _row(["---"] * len(header)), *(_row(cells) for cells in body)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float, digits: int = 3) -> str:
    """Return a number to some significant digits, counts from 1,000 in thousands."""
    if value >= 1e3:
        return f"{number(value / 1e3, digits)}k"
    return np.format_float_positional(value, precision=digits, fractional=False, trim="k").rstrip(".")


def count_interval(estimate: float, ends: tuple[float, float] | None) -> str:
    """Return a count with its interval."""
    text = number(estimate)
    return text if ends is None else f"{text} [{number(ends[0])}, {number(ends[1])}]"


def interval(estimate: float, ends: tuple[float, float] | None, decimals: int = 3) -> str:
    """Return a number with its interval, with fixed decimals."""
    text = f"{estimate:.{decimals}f}"
    return text if ends is None else f"{text} [{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]"


def flops(value: float) -> str:
    """Return FLOPs in short scientific notation."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def fitted(study: Study, arm: str | None = None) -> Fit:
    """Return the stored fit of an arm."""
    return read_fit(fit_path(study, arm))


def law(found: Fit, method: str) -> Law:
    """Return the law of a method. Raises KeyError where the method refused."""
    return found.laws[method]


def arm_points(study: Study) -> dict[str | None, list[tuple[Point, dict[str, Any]]]]:
    """Return the points of each arm with the other columns of their rows."""
    points = table(study)
    return {
        arm: [(points[position], _extras(points, position)) for position in positions]
        for arm, positions in arms(points).items()
    }


def _extras(points: Table, position: int) -> dict[str, Any]:
    return {name: column[position] for name, column in points.extras.items()}


def validation_table() -> list[str]:
    """Return every registered prediction with what was measured."""
    body = []
    for study in (STUDIES["demo"], STUDIES["cpu_stdlib"]):
        for one in validations(study):
            known = one.registration
            measured_n = "not bracketed"
            if one.n_params_opt is not None:
                measured_n = count_interval(one.n_params_opt, one.n_params_opt_interval)
            body.append(
                [
                    f"`{study.name}`",
                    f"{flops(known.flops)} ({known.reach:.3g}×)",
                    interval(known.loss_opt, known.loss_interval),
                    f"{one.loss:.3f}",
                    f"{one.loss_error:+.1%}".replace("%", " %"),
                    "yes" if one.loss_inside else "no",
                    count_interval(known.n_params_opt, known.n_params_opt_interval),
                    measured_n,
                    {True: "yes", False: "no", None: "–"}[one.n_params_opt_inside],
                ]
            )
    header = [
        "sweep",
        "FLOPs",
        "loss predicted",
        "measured",
        "error",
        "inside",
        "N_opt predicted",
        "measured",
    ]
    return rows([*header, "inside"], body)


def entropy_table() -> list[str]:
    """Return E of every chain with the exact minimum of the loss."""
    study, body = STUDIES["known_entropy"], []
    for arm in sorted(arms(table(study)), key=str):
        seed = int(str(arm).partition("=")[2])
        exact = loss_floor(SyntheticData(source="synthetic", seed=seed, **KNOWN), KNOWN_SEQ_LEN)
        surface = law(fitted(study, arm), "parametric")
        estimate, ends = surface.constants["E"], surface.ci["E"]
        holds = "yes" if ends[0] <= exact <= ends[1] else "no"
        error = f"{estimate / exact - 1:+.1%}".replace("%", " %")
        body.append([str(seed), f"{exact:.4f}", interval(estimate, ends), error, holds])
    return rows(["chain", "exact", "E", "error", "interval holds it"], body)


def cooldown_table() -> list[str]:
    """Return cost and answer of cosine runs and of branches from common trunks, with seed 0."""
    branches = arm_points(STUDIES["cooldown"])[None]
    budgets = {point.flops_budget for point, _ in branches}
    top = max(budget for budget in budgets if budget is not None)
    cosine = [
        pair
        for pair in arm_points(STUDIES["cpu_stdlib"])[None]
        if pair[0].flops_budget in budgets and pair[0].seed == 0
    ]
    body = []
    for schedule, own in (("cosine", cosine), ("wsd_branches", branches)):
        found = fit([point for point, _ in own], ANSWER)
        answer, isoflop = found.answer, law(found, "isoflop")
        assert isinstance(answer, Law)
        spent = sum(float(extras["flops_spent"]) for _, extras in own)
        cells = [interval(isoflop.constants["a"], isoflop.ci["a"], 2)]
        cells += [*_answer_cells(answer, top), *_answer_cells(answer, 8 * top)]
        body.append([f"`{schedule}`", str(len(own)), flops(spent), *cells])
    header = ["schedule", "runs", "FLOPs spent", "isoflop a", "loss at 1e11", "N_opt", "loss at 8e11"]
    return rows([*header, "N_opt"], body)


def _answer_cells(answer: Law, at: float) -> list[str]:
    return [
        interval(answer.loss_opt(at), answer.interval("loss_opt", at), 2),
        count_interval(answer.n_params_opt(at), answer.interval("n_params_opt", at)),
    ]


def noise_table() -> list[str]:
    """Return the gradient-noise scale of the runs of cpu_stdlib with the batch of its rule, by budget."""
    study = STUDIES["cpu_stdlib"]
    tested = validation_keys(study)
    rows_of: dict[float, list[tuple[float, float, float]]] = {}
    for point, extras in arm_points(study)[None]:
        if point.run_key in tested or not extras["b_simple_tokens"]:
            continue
        assert point.loss is not None
        assert point.flops_budget is not None
        values = point.loss, float(extras["b_simple_tokens"]), float(extras["batch_tokens"])
        rows_of.setdefault(point.flops_budget, []).append(values)
    body = []
    for budget, values in sorted(rows_of.items()):
        logs = np.log(np.array(values))
        loss, scale, batch = np.exp(logs.mean(axis=0))
        spread = f"× {np.exp(logs[:, 1].std()):.1f}"
        body.append(
            [flops(budget), str(len(values)), f"{loss:.2f}", number(scale, 2), spread, number(batch, 2)]
        )
    return rows(["budget", "runs resolved", "loss", "noise scale", "spread", "batch"], body)


def exponent_table() -> list[str]:
    """Return the exponent of N_opt under each set of choices."""
    body = [
        [
            one.method,
            one.n_params.replace("_", "-"),
            {"exact": "exact", "kaplan": "Kaplan's"}[one.flops],
            interval(one.a, one.interval, 2),
        ]
        for one in exponents()
    ]
    return rows(["method", "N", "C", "a"], body)


def compared_table(name: str) -> list[str]:
    """Return each arm of a study next to cpu_stdlib: paired losses, and its compute multiplier.

    The multiplier is that at the arm's largest budget, absent for an arm without three bracketed minima.
    """
    study, body = STUDIES[name], []
    losses = {_cell(*pair): pair[0].loss for pair in arm_points(STUDIES["cpu_stdlib"])[None]}
    for arm, pairs in arm_points(study).items():
        gaps = [point.loss - losses[_cell(point, extras)] for point, extras in pairs]
        shown = [str(arm), str(len(gaps)), f"{np.mean(gaps):+.3f} ± {np.std(gaps, ddof=1):.3f}"]
        try:
            found = compare_sources([_points(STUDIES["cpu_stdlib"]), f"{_points(study)}:{arm}"], ANSWER)
        except InputError:
            body.append([*shown, "–", "–", "–"])
            continue
        at = next(one for one in found.at if one.flops == max(found.b.budgets))
        factor = interval(at.flops_factor.value, at.flops_factor.interval, 2)
        body.append([*shown, factor, f"{at.p_b_better:.0%}", f"{found.exponents.p_value:.2f}"])
    header = ["arm", "cells", "loss, less that of the same cell", "compute multiplier", "P(better)"]
    return rows([*header, "p of equal exponents"], body)


def _points(study: Study) -> str:
    return str(study.directory / "points.csv")


def _cell(point: Point, extras: dict[str, Any]) -> tuple[float | None, int, int | None]:
    return point.flops_budget, int(extras["d_model"]), point.seed


TABLES: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "validations": ("demo", validation_table),
    "known_entropy": ("known_entropy", entropy_table),
    "cooldown": ("cooldown", cooldown_table),
    "noise_scale": ("cpu_stdlib", noise_table),
    "exponents": ("cpu_stdlib", exponent_table),
    "muon": ("muon", partial(compared_table, "muon")),
    "depths": ("depths", partial(compared_table, "depths")),
}
"""Tables by name, each with the study that it needs."""
