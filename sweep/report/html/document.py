"""The document of a report: everything that the page shows, as plain JSON types."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.config import ExperimentConfig, FitConfig
from sweep.fit.answer import AnswerLaw
from sweep.fit.compare.comparison import ArmPair, MultiplierAt
from sweep.fit.prediction import Prediction
from sweep.fit.refusals import Refusal
from sweep.flops import PEAK_FLOPS_PER_SECOND
from sweep.report.html import evidence, laws, runs
from sweep.report.html.ask import AskGrid, RunAt, ask_grid
from sweep.report.html.experiment import experiment_file
from sweep.report.html.numbers import rounded
from sweep.report.numbers import format4
from sweep.report.results import SweepResults, caption
from sweep.report.series.isoflop import IsoflopCurve, isoflop_curves
from sweep.report.text.answer import answer_sentence, reason_lines, warnings_of
from sweep.report.text.comparison import compared_runs, comparison_notes, conclusions, multiplier_sentence
from sweep.report.text.validation import validation_line
from sweep.shell import path_argument
from sweep.store.validations import Validation

FloatArray = npt.NDArray[np.float64]

SCHEMA_VERSION = 1
ASSUMED_MFU = 0.4  # of an accelerator, where the sweep measured none


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StudyInput:
    """One sweep, one arm of a sweep, or one table: the input of its part of the page."""

    arm: str | None
    results: SweepResults
    settings: FitConfig
    predictions: tuple[Prediction, ...]  # at the largest budget and at 10 times
    experiment: ExperimentConfig | None = None  # None for a table
    family: tuple[FloatArray, FloatArray] | None = None  # N and FLOPs per token of plannable sizes
    run_at: RunAt | None = None
    ledger: Mapping[str, float] = field(default_factory=dict)  # seconds by activity


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PageInput:
    """A report: its studies, and where they come from."""

    title: str
    source: str  # argument of `sweep predict` that names the sweep or the table
    commands: tuple[str, ...]  # that reproduce the report
    generated_at: str  # ISO 8601, UTC
    version: str  # of the package
    studies: Sequence[StudyInput]
    comparisons: Sequence[ArmPair] = ()
    pending: tuple[int, int] | None = None  # finished and planned runs while a sweep is running
    hashes: Mapping[str, str] = field(default_factory=dict)
    price_per_hour: float = 0.0


def document(page: PageInput) -> dict[str, Any]:
    """Return the whole document; equal inputs give equal documents."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": page.title,
        "source": page.source,
        "commands": list(page.commands),
        "generated_at": page.generated_at,
        "version": page.version,
        "pending": None if page.pending is None else list(page.pending),
        "hashes": dict(page.hashes),
        "price_per_hour": page.price_per_hour,
        "devices": dict(PEAK_FLOPS_PER_SECOND),
        "studies": [_study(study, page.source) for study in page.studies],
        "comparisons": [_comparison(pair) for pair in page.comparisons],
    }


def _comparison(pair: ArmPair) -> dict[str, Any]:
    """Return a comparison of two arms in words and, at full precision, as `sweep compare --json` gives it."""
    found = pair.found
    if found is None:
        return {"a": pair.a, "b": pair.b, "refused": pair.refused, "found": None}
    return {
        "a": pair.a,
        "b": pair.b,
        "refused": None,
        "sentences": [_multiplier(at, pair) for at in (found.at_largest, found.target)],
        "conclusions": list(conclusions(found)),
        "notes": comparison_notes(found),
        "caption": f"B = {pair.b} over A = {pair.a}: {compared_runs(found)}",
        "found": found.to_json(),
    }


def _multiplier(at: MultiplierAt, pair: ArmPair) -> str:
    where = "extrapolated " if at.extrapolated else ""
    return where + multiplier_sentence(at, pair.a, pair.b)


def _suggest(study: StudyInput, source: str) -> str | None:
    """Return the command that names the runs which the answer of a sweep lacks, if it is refused."""
    if study.experiment is None or not isinstance(study.results.fit.answer, Refusal):
        return None
    arm = "" if study.arm is None else f" --arm {shlex.quote(study.arm)}"
    return f"sweep suggest {path_argument(source)}{arm}"


def _study(study: StudyInput, source: str) -> dict[str, Any]:
    results, fit = study.results, study.results.fit
    index = {label: row for row, label in enumerate(runs.labels(results.points))}
    budgets = isoflop_curves(results) if fit.flops_range is not None else ()
    ask = _ask(study)
    return {
        "arm": study.arm,
        "caption": caption(results),
        "experiment": None if study.experiment is None else experiment_file(study.experiment).to_json(),
        "confidence": study.settings.confidence,
        "n_points": fit.n_points,
        "sentences": list(_sentences(study)),
        "refused": fit.answer.reason if isinstance(fit.answer, Refusal) else None,
        "suggest": _suggest(study, source),
        "validation": validation_line(results.validations[-1]) if results.validations else None,
        "ask": None if ask is None else ask.to_json(),
        "mfu": _utilisation(results),
        "budgets": [_budget(curve) for curve in budgets],
        "laws": laws.curves(fit),
        "contours": laws.contours(results),
        "backtest": evidence.backtest(results),
        "validations": [_validation(one) for one in results.validations],
        "residuals": evidence.residual_rows(results, index) if fit.flops_range is not None else [],
        "agreement": evidence.agreement(fit),
        "reconcile": evidence.reconcile(fit),
        "hparams": evidence.hparams(results),
        "leave_out": _leave_out(study),
        "runs": runs.run_columns(results),
        "curves": runs.curve_columns(results, index),
        "irreducible_loss": rounded(runs.irreducible_loss(fit)),
        "devices": runs.device_rows(results),
        "ledger": rounded(dict(study.ledger)),
    }


def _ask(study: StudyInput) -> AskGrid | None:
    fit = study.results.fit
    if not isinstance(fit.answer, AnswerLaw) or fit.flops_range is None:
        return None
    return ask_grid(
        fit.answer,
        fit.flops_range[0],
        max_reach=study.settings.max_reach,
        max_interval_factor=study.settings.max_interval_factor,
        family=study.family,
        run_at=study.run_at,
    )


def _sentences(study: StudyInput) -> Iterator[dict[str, Any]]:
    """Yield the answer at each predicted budget, with its reasons and warnings."""
    for prediction in study.predictions:
        found = prediction.to_json()
        yield {
            "flops": prediction.flops,
            "at": format4(prediction.flops),
            "reach": rounded(prediction.beyond_data),
            "text": answer_sentence(found),
            "reasons": list(reason_lines(found)),
            "warnings": warnings_of(found),
        }


def _budget(curve: IsoflopCurve) -> dict[str, Any]:
    step = max(1, len(curve.parabola_n_params) // 40)
    return {
        "flops_budget": curve.flops_budget,
        "status": curve.status,
        "reason": curve.reason,
        "labels": list(curve.labels),
        "excluded": list(curve.excluded_labels),
        "parabola": {
            "n_params": rounded(curve.parabola_n_params[::step]),
            "loss": rounded(curve.parabola_loss[::step]),
        },
        "n_params_opt": rounded(curve.n_params_opt),
        "n_tokens_opt": rounded(curve.n_tokens_opt),
        "flops": rounded(curve.flops),
        "loss_opt": rounded(curve.loss_opt),
        "n_params_interval": rounded(curve.n_params_interval),
    }


def _validation(validation: Validation) -> dict[str, Any]:
    found: dict[str, Any] = rounded(validation.to_json())
    found["prediction"].pop("runs", None)
    return found


def _leave_out(study: StudyInput) -> dict[str, Any] | None:
    fit = study.results.fit
    if not isinstance(fit.answer, AnswerLaw):
        return None
    observations = study.results.observations()
    if observations.refusal is not None or not len(observations):
        return None
    return laws.leave_outs(observations, study.settings, fit.answer.flops_max)


def _utilisation(results: SweepResults) -> dict[str, Any]:
    """Return the median utilisation of the runs, or an assumed one where none was measured."""
    known = [point.mfu for point in results.points if point.mfu is not None]
    if known:
        return {"value": rounded(float(np.median(known)), 3), "measured": True}
    return {"value": ASSUMED_MFU, "measured": False}
