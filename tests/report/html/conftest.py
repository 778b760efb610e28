"""Pages of planted sweeps: one of plain names, one of names that would run scripts."""

from __future__ import annotations

import dataclasses

import pytest

from sweep.config import FitConfig
from sweep.config.compose import compose_experiment
from sweep.report.html.document import PageInput, StudyInput
from sweep.report.results import SweepResults
from tests.report.figures.planted import planted_sweep
from tests.report.html.payloads import PAYLOADS

SETTINGS = FitConfig(n_bootstrap=60, methods=("isoflop", "parametric"))


@pytest.fixture(scope="session")
def planted() -> SweepResults:
    return planted_sweep()


def page_of(results: SweepResults, **options) -> PageInput:
    study = StudyInput(
        arm=options.pop("arm", None),
        results=results,
        settings=SETTINGS,
        predictions=options.pop("predictions", ()),
        experiment=options.pop("experiment", None),
        run_at=options.pop("run_at", None),
    )
    given = {"title": "planted", "source": "results/planted", "commands": ("sweep fit results/planted",)}
    return PageInput(
        **{**given, "generated_at": "2026-01-02T03:04:05Z", "version": "1.2.3", "studies": [study], **options}
    )


def hostile(results: SweepResults) -> PageInput:
    """Return a page with a payload wherever a user's text appears."""
    points = [
        dataclasses.replace(
            point,
            name=f"{PAYLOADS[row % len(PAYLOADS)]} {row}",
            corpus=PAYLOADS[1],
            tokenizer=PAYLOADS[6],
            device=PAYLOADS[7],
            schedule=PAYLOADS[9],
            wall_time_s=1.0,
        )
        for row, point in enumerate(results.points)
    ]
    extra = [
        dataclasses.replace(
            points[row % len(points)], run_key=payload, name=payload, loss=None, status="diverged"
        )
        for row, payload in enumerate(PAYLOADS)
    ]
    excluded = tuple(
        dataclasses.replace(results.fit.excluded[0], run_key=payload, reason=payload) for payload in PAYLOADS
    )
    fit = dataclasses.replace(results.fit, excluded=(*results.fit.excluded, *excluded))
    return page_of(
        dataclasses.replace(results, fit=fit, points=[*points, *extra]),
        arm=PAYLOADS[0],
        experiment=dataclasses.replace(
            compose_experiment(["experiment=demo"]), name=PAYLOADS[3], arm=PAYLOADS[4], data_dir=None
        ),
        title=PAYLOADS[23],
        source=PAYLOADS[2],
        commands=PAYLOADS,
        hashes={payload: payload for payload in PAYLOADS},
        pending=(1, 2),
    )
