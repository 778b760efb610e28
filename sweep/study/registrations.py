"""The answer of a sweep at a budget, ready to be registered before its runs are trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sweep.config import ExperimentConfig
from sweep.errors import InputError
from sweep.fit import Fit, Prediction, Refusal
from sweep.fit.prediction import AnswerPrediction
from sweep.identity import code_version, sha256_json
from sweep.records import Plan
from sweep.store.run_store import RunStore
from sweep.store.validations import Registration, ValidationRun
from sweep.study.laws import MIN_VALIDATED, fit_arm
from sweep.study.predictions import predict


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedAnswer:
    """The answer at a budget before it is registered."""

    flops: float
    arm: str | None
    reach: float
    n_params: int  # of the concrete run
    answer: AnswerPrediction
    run_noise_sd: float | None
    n_points: int
    points_sha256: str

    def registration(self, plan: Plan) -> Registration:
        """Return the prediction with the runs of its plan, at the present time."""
        answer = self.answer
        loss_interval = answer.loss_prediction_interval or answer.ci["loss_opt"]
        return Registration(
            registered_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            flops=self.flops,
            arm=self.arm,
            reach=self.reach,
            confidence=answer.confidence,
            n_params_opt=answer.estimate["n_params_opt"],
            n_params_opt_interval=answer.ci["n_params_opt"],
            n_tokens_opt=answer.estimate["n_tokens_opt"],
            n_tokens_opt_interval=answer.ci["n_tokens_opt"],
            loss_opt=answer.estimate["loss_opt"],
            loss_opt_interval=answer.ci["loss_opt"],
            loss_interval=loss_interval,
            run_noise_sd=self.run_noise_sd,
            n_points=self.n_points,
            points_sha256=self.points_sha256,
            code_version=code_version(),
            runs=tuple(_runs(plan)),
        )


def predicted_answer(
    sweep_dir: Path, experiment: ExperimentConfig, budget: float, arm: str | None
) -> PredictedAnswer:
    """Fit the sweep and return its answer at a budget. Raises InputError where there is none."""
    fitted = fit_arm(sweep_dir, experiment.fit, arm)
    (prediction,) = predict(fitted, (budget,), family=experiment)
    answer = _answer(fitted, prediction)
    assert prediction.shape is not None
    return PredictedAnswer(
        flops=budget,
        arm=arm,
        reach=prediction.beyond_data or 0.0,
        n_params=prediction.shape["n_params"],
        answer=answer,
        run_noise_sd=_run_noise(fitted),
        n_points=fitted.n_points,
        points_sha256=_points_sha256(sweep_dir, fitted, arm),
    )


def _answer(fitted: Fit, prediction: Prediction) -> AnswerPrediction:
    answer = prediction.answer
    if answer is None or isinstance(answer, Refusal):
        reason = "the fit has no answer" if answer is None else answer.reason
        raise InputError(f"there is no prediction to validate at {prediction.flops:.4g} FLOPs: {reason}")
    if (prediction.beyond_data or 0.0) < MIN_VALIDATED:
        assert fitted.flops_range is not None
        raise InputError(
            f"{prediction.flops:.4g} FLOPs are not beyond the fitted budgets, so there is nothing to "
            f"validate: give more than {fitted.flops_range[1] * MIN_VALIDATED:.4g} FLOPs"
        )
    if "loss_opt" not in answer.ci:
        raise InputError("the prediction has no interval to validate: set fit.n_bootstrap above 0")
    return answer


def _run_noise(fitted: Fit) -> float | None:
    noise = None if fitted.answer is None or isinstance(fitted.answer, Refusal) else fitted.answer.noise
    return None if noise is None else noise.sd


def _points_sha256(sweep_dir: Path, fitted: Fit, arm: str | None) -> str:
    """Return the SHA-256 of the canonical JSON of [run key, loss] of the fitted points, sorted."""
    left_out = {point.run_key for point in fitted.excluded}
    points = RunStore(sweep_dir).points().points
    used = [point for point in points if point.arm == arm and point.run_key not in left_out]
    return sha256_json(sorted([str(point.run_key), point.loss] for point in used))


def _runs(plan: Plan) -> Iterator[ValidationRun]:
    for run in sorted(plan.runs, key=lambda run: (run.n_params, run.config.seed)):
        config = run.config
        yield ValidationRun(
            run_key=run.run_key,
            name=config.name,
            d_model=config.model.d_model,
            n_layers=config.model.n_layers,
            n_params=run.n_params,
            n_tokens=config.n_tokens,
            flops=run.flops,
            seed=config.seed,
        )
