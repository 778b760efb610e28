"""Tables of the documentation that are made from the reference sweeps, as lines of Markdown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from scripts.evidence.batches import batch_table, noise_table
from scripts.evidence.counting import exponent_table
from scripts.evidence.floors import PATH as FLOORS
from scripts.evidence.markdown import count_interval, flops, interval, number, percent, rows
from scripts.evidence.overtraining import overtraining_table
from scripts.evidence.repetition import repetition_table, stop_table
from scripts.evidence.samples import sample_table
from scripts.evidence.studies import STUDIES, Study, arm_points, fitted, table, validations
from sweep.config import FitConfig, SyntheticData
from sweep.config.compose import compose_experiments
from sweep.data.sources.synthetic import loss_floor
from sweep.errors import InputError
from sweep.fit import Law, Table, fit
from sweep.records import Point
from sweep.store.validations import Registration, ValidationRun
from sweep.study.compare import compare_sources
from sweep.study.scores import score

ANSWER = FitConfig(confidence=0.9)
THIRD_SEEDS = {"demo": "demo_third_seed", "cpu_stdlib": "third_seed"}  # runs of a third seed, by sweep


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
                    percent(one.loss_error),
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


def third_seed_table() -> list[str]:
    """Return the registered predictions with a third seed, which was trained after they were scored."""
    body = []
    for name, third in THIRD_SEEDS.items():
        study, further = STUDIES[name], table(STUDIES[third])
        points = {str(point.run_key): point for point in (*table(study), *further)}
        for one in validations(study):
            runs = (*one.registration.runs, *_third_runs(one.registration, further))
            scored = score(dataclasses.replace(one.registration, runs=runs), points)
            assert scored is not None
            best = [run for run in runs if run.n_params == scored.n_params]
            body.append(
                [
                    f"`{name}`",
                    flops(one.registration.flops),
                    interval(one.registration.loss_opt, one.registration.loss_interval),
                    ", ".join(f"{points[run.run_key].loss:.3f}" for run in best),
                    f"{scored.loss:.3f}",
                    percent(scored.loss_error),
                    "yes" if scored.loss_inside else "no",
                    number(scored.n_params),
                ]
            )
    header = ["sweep", "FLOPs", "loss predicted", "seeds 0, 1, 2", "mean", "error", "inside", "best size"]
    return rows(header, body)


def _third_runs(registration: Registration, further: Table) -> list[ValidationRun]:
    """Return the runs of the third seed as further runs of a registration, which has a run for each size."""
    of_size = {run.n_params: run for run in registration.runs}
    return [
        dataclasses.replace(of_size[int(point.n_params)], run_key=str(point.run_key), seed=int(point.seed))
        for point in further
        if point.flops_budget == registration.flops
    ]


def entropy_table() -> list[str]:
    """Return E of every chain by two methods, with the exact minimum of the loss and that on the windows."""
    study, body = STUDIES["known_entropy"], []
    pairs, floors = arm_points(study), json.loads(FLOORS.read_text())
    for chain in compose_experiments(["experiment=known_entropy"]):
        assert isinstance(chain.data, SyntheticData)
        exact, own = loss_floor(chain.data, chain.model.seq_len), floors[chain.arm]
        points = [point for point, _ in pairs[chain.arm]]
        assert {point.evaluation_sha256 for point in points} == {own["evaluation_sha256"]}
        best = min(point.loss for point in points if point.loss is not None)
        cells = [str(chain.data.seed), f"{exact:.4f}", f"{own['loss']:.4f}", f"{best:.4f}"]
        for method in ("isoflop", "parametric"):
            law = fitted(study, chain.arm).laws.get(method)
            if law is None:
                cells += ["refused", "–"]
                continue
            low, high = law.ci["E"]
            holds = ("yes" if low <= value <= high else "no" for value in (exact, own["loss"]))
            cells += [interval(law.constants["E"], (low, high), 4), ", ".join(holds)]
        body.append(cells)
    header = ["chain", "exact", "on the windows", "lowest loss", "E of isoflop", "holds", "E of parametric"]
    return rows([*header, "holds"], body)


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
        answer, isoflop = found.answer, found.laws["isoflop"]
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
    "third_seed": ("third_seed", third_seed_table),
    "known_entropy": ("known_entropy", entropy_table),
    "cooldown": ("cooldown", cooldown_table),
    "muon": ("muon", partial(compared_table, "muon")),
    "depths": ("depths", partial(compared_table, "depths")),
    "exponents": ("one_schedule", exponent_table),
    "noise_scale": ("cpu_stdlib", noise_table),
    "batches": ("batches", batch_table),
    "repetition": ("repetition", repetition_table),
    "stops": ("repetition", stop_table),
    "overtraining": ("cpu_stdlib", overtraining_table),
    "samples": ("one_schedule", sample_table),
}
"""Tables by name, each with the study that it needs."""
