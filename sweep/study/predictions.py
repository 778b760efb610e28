"""Predictions from a fit, and the runs of a family that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep import flops
from sweep.config import ExperimentConfig, FitConfig
from sweep.data.tokenizers.tokenizers import vocab_size
from sweep.errors import InputError
from sweep.fit import Fit, Prediction, Question
from sweep.fit import predict as predict_at
from sweep.fit.predict import predict_run
from sweep.fit.prediction import RunPrediction
from sweep.fit.refusals import Refusal
from sweep.plan import rules
from sweep.plan.grid import tokens_of_budget
from sweep.plan.shapes import nearest_shape, shape_of_width, width_step
from sweep.records import Point

SUMMARISED = (10.0, 4.0, 2.0, 1.0)  # times the largest fitted budget
ASPECT_ROUNDING = 0.01
MAX_WIDTH_FACTOR = 4.0  # over the largest trained width, above which a shape gets a note
MAX_DOUBLINGS = 14  # of the width: the sizes that predictions consider


def predict(
    fitted: Fit,
    budgets: Sequence[float],
    *,
    family: ExperimentConfig | None = None,
    trained: Sequence[Point] = (),
    inference_tokens: float | None = None,
    settings: FitConfig | None = None,
) -> tuple[Prediction, ...]:
    """Return the answer and the prediction of every method of a fit at each budget, in training FLOPs.

    `family` is the experiment that the fit is about: sizes beyond those trained then follow its shapes, and
    each prediction holds the concrete run, with notes if none of the `trained` points has such a shape. With
    `inference_tokens`, the tokens served in the model's life, lifetime compute is minimised too. `settings`
    limit the distance and the width of intervals; the default are those of the family.
    """
    settings = settings or (family.fit if family else FitConfig())
    sizes = plannable_sizes(family) if family and fitted.constraint == "exact" else None
    shapes = ShapeRange.of(trained)

    def question(budget: float) -> Question:
        at_budget = None if inference_tokens else budget  # the optimum with serving has another budget
        return Question(
            shape=partial(noted_run, family, shapes, at_budget) if family else None,
            family=sizes,
            max_interval_factor=settings.max_interval_factor,
            max_reach=settings.max_reach,
            inference_tokens=inference_tokens,
        )

    return tuple(predict_at(fitted, (budget,), question(budget))[0] for budget in budgets)


def summary(fitted: Fit, settings: FitConfig) -> Prediction | None:
    """Return the prediction by which a fit is summarised; None for a fit without points.

    It is at 10 times the largest fitted budget to two digits, or nearer where that is refused.
    """
    if fitted.flops_max is None:
        return None
    for factor in SUMMARISED:
        budget = float(f"{fitted.flops_max * min(factor, settings.max_reach):.1e}")
        (prediction,) = predict(fitted, (budget,), settings=settings)
        if not isinstance(prediction.answer, Refusal) or isinstance(fitted.answer, Refusal):
            break
    return prediction


def run_loss(fitted: Fit, n_params: float, n_tokens: float, settings: FitConfig) -> RunPrediction:
    """Return the predicted loss of a given run. Raises InputError where the fit gives none."""
    found = predict_run(fitted, n_params, n_tokens, max_reach=settings.max_reach)
    if isinstance(found, Refusal):
        raise InputError(f"there is no prediction for this run: {found.reason}")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeRange:
    """The shapes of the trained runs."""

    aspects: tuple[float, float]  # least and largest d_model / n_layers
    largest_width: int

    @classmethod
    def of(cls, points: Sequence[Point]) -> ShapeRange | None:
        """Return the range of the finished runs with known shapes; None without any."""
        shapes = [
            (point.d_model, point.n_layers)
            for point in points
            if point.status == "done" and point.d_model and point.n_layers
        ]
        if not shapes:
            return None
        aspects = [width / depth for width, depth in shapes]
        return cls(aspects=(min(aspects), max(aspects)), largest_width=max(width for width, _ in shapes))

    def notes(self, d_model: int, n_layers: int) -> list[str]:
        """Return a sentence for each way in which a shape lies outside of those trained."""
        notes = []
        aspect, (low, high) = d_model / n_layers, self.aspects
        if not low * (1 - ASPECT_ROUNDING) <= aspect <= high * (1 + ASPECT_ROUNDING):
            trained = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            notes.append(
                f"no trained run had this aspect ratio (d_model/n_layers {aspect:.3g}, trained {trained}): "
                f"the law does not cover its effect"
            )
        if d_model > MAX_WIDTH_FACTOR * self.largest_width:
            notes.append(
                f"the width is {d_model / self.largest_width:.3g} times the largest trained one "
                f"({self.largest_width}): check the learning rate there"
            )
        return notes


def plannable_sizes(
    experiment: ExperimentConfig,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return N and exact FLOPs per token of the experiment's decoders, over all widths it could plan."""
    architecture, n_vocab = experiment.model, vocab_size(experiment.tokenizer)
    step = width_step(architecture)
    multiples = sorted({round(2 ** (exponent / 4)) for exponent in range(MAX_DOUBLINGS * 4)})
    shapes = [shape_of_width(multiple * step, architecture, n_vocab) for multiple in multiples]
    sizes = {flops.n_params(shape).total: flops.flops_per_token(shape) for shape in shapes}
    return np.array(list(sizes), dtype=float), np.array(list(sizes.values()), dtype=float)


def concrete_run(
    experiment: ExperimentConfig, n_params: float, n_tokens: float, budget: float | None
) -> Mapping[str, Any]:
    """Return the run nearest to N parameters that the experiment's family and rules allow.

    Its tokens are those that `budget` pays for at that shape, as in a plan; without a budget, D in whole
    batches.
    """
    n_vocab = vocab_size(experiment.tokenizer)
    model = nearest_shape(lambda m: flops.n_params(m).total, n_params, experiment.model, n_vocab)
    cell = tokens_of_budget(experiment, model, budget or n_tokens * flops.flops_per_token(model))
    return {
        "d_model": model.d_model,
        "n_layers": model.n_layers,
        "n_heads": model.n_heads,
        "n_params": flops.n_params(model).total,
        "n_tokens": cell.n_tokens,
        "flops": flops.count(model, cell.n_tokens).flops,
        "batch_tokens": cell.batch_tokens,
        "n_steps": cell.n_steps,
        "lr_peak": rules.lr_peak(experiment.optimizer, cell),
    }


def noted_run(
    experiment: ExperimentConfig,
    shapes: ShapeRange | None,
    budget: float | None,
    n_params: float,
    n_tokens: float,
) -> Mapping[str, Any]:
    """Return `concrete_run`, with notes on a shape that lies outside of the trained `shapes`."""
    run = concrete_run(experiment, n_params, n_tokens, budget)
    notes = [] if shapes is None else shapes.notes(run["d_model"], run["n_layers"])
    return {**run, "notes": notes}
