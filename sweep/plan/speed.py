"""The speed of one worker: seconds of an optimizer step by shape, fitted to measurements of this machine.

Seconds of a step = a sum of terms with non-negative coefficients: a constant, one for each layer, FLOPs,
element-wise work of the blocks, logits, parameters updated, and attention scores. Coefficients minimise
squared relative errors, with a weak prior; the ratios of measured to fitted seconds at similar steps then
correct the estimate of a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sweep import flops
from sweep.config import EVALUATION_BATCH_TOKENS, RunConfig
from sweep.plan import estimate
from sweep.plan.devices import DeviceType
from sweep.records import Plan, PlannedRun

FloatArray = npt.NDArray[np.float64]

PRIOR = np.array([5e-4, 4e-4, 1.2e-11, 3e-10, 1.2e-9, 2e-9, 6e-10])
"""Seconds per unit of each term, of one core of a server of 2023."""
PRIOR_WEIGHT = 0.03  # of the prior of one term, relative to one measurement
N_SWEEPS = 500  # of coordinate descent; the problem has 7 unknowns
NEAR = 0.5  # in ln FLOPs and ln tokens of a step: the scale over which measurements correct each other
CORRECTION_PRIOR = 0.3  # measurements' worth of belief in the fitted coefficients
COVERED = 1.0  # in ln FLOPs and ln tokens of a step: a measurement nearer than this covers it
SPACING = 0.4  # of measurements, in the same units
OTHER_DEPTH = 1.0
WORTH = 0.3  # of a plan's time: more of it without a similar measurement is measured
RUN_START_S = 0.15  # of a run: opening the data and building the model
Terms = tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """The measured time of one optimizer step."""

    terms: Terms  # as `step_terms`
    tokens: float  # of the step
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Speed of one worker: measured step times and the time to start."""

    steps: tuple[StepTime, ...]  # at least one
    start_s: float  # of a worker, before its first run

    @cached_property
    def coefficients(self) -> FloatArray:
        """Seconds per unit of each term, (7,)."""
        seconds = np.array([step.seconds for step in self.steps])
        rows = np.array([step.terms for step in self.steps]) / seconds[:, None]
        penalty = np.diag(math.sqrt(PRIOR_WEIGHT) / PRIOR)
        return non_negative_least_squares(
            np.vstack([rows, penalty]),
            np.concatenate([np.ones(len(rows)), np.full(len(PRIOR), math.sqrt(PRIOR_WEIGHT))]),
            PRIOR,
        )

    def step_s(self, run: RunConfig) -> float:
        """Return the seconds of one optimizer step of `run`."""
        terms = step_terms(run, run.batch_tokens)
        return float(np.dot(terms, self.coefficients)) * self._correction(terms, run.batch_tokens)

    def run_s(self, run: PlannedRun) -> float:
        """Return the seconds of a planned run: its own steps, the held-out evaluation, and its start."""
        config = run.config
        n_steps = config.n_steps - (config.branch_step if run.flops_shared else 0)
        n_evaluated = config.evaluation.n_tokens
        chunk = min(EVALUATION_BATCH_TOKENS, n_evaluated)
        forward = np.array(step_terms(config, chunk)) / 3
        forward[5] = 0.0  # no update
        evaluation = float(forward @ self.coefficients) * n_evaluated / chunk
        evaluation *= self._correction(step_terms(config, chunk), chunk)
        return n_steps * self.step_s(config) + evaluation + RUN_START_S

    @cached_property
    def _residuals(self) -> tuple[FloatArray, FloatArray]:
        """Places of the measured steps, (n, 3), and ln of measured over fitted seconds, (n,)."""
        fitted = np.array([step.terms for step in self.steps]) @ self.coefficients
        return _places(self.steps), np.log(np.array([step.seconds for step in self.steps]) / fitted)

    def _correction(self, terms: Terms, tokens: float) -> float:
        places, logs = self._residuals
        weights = np.exp(-0.5 * (_distances(places, terms, tokens) / NEAR) ** 2)
        return math.exp(float(weights @ logs) / (float(weights.sum()) + CORRECTION_PRIOR))


def _places(steps: Sequence[StepTime]) -> FloatArray:
    """Return layers, ln FLOPs and ln tokens of steps, (n, 3)."""
    rows = [(step.terms[1], math.log(step.terms[2]), math.log(step.tokens)) for step in steps]
    return np.array(rows).reshape(-1, 3)


def _distances(places: FloatArray, terms: Terms, tokens: float) -> FloatArray:
    """Return the distance of each place from a step, in ln FLOPs and ln tokens, (n,)."""
    distances: FloatArray = np.hypot(places[:, 1] - math.log(terms[2]), places[:, 2] - math.log(tokens))
    return distances


def step_terms(run: RunConfig, n_tokens: int) -> Terms:
    """Return the terms of a step over `n_tokens` tokens of the run's model, in the order of `PRIOR`."""
    model = run.model
    exact = flops.flops_per_token(model) * n_tokens
    exact += flops.optimizer_flops_per_step(model, run.optimizer)
    block = 12 * model.d_model + 2 * flops.mlp_matrices(model) * model.d_ff
    return (
        1.0,
        float(model.n_layers),
        float(exact),
        float(n_tokens * model.n_layers * block),
        float(n_tokens * model.vocab_size),
        float(flops.n_params(model).total),
        float(n_tokens * model.seq_len * model.n_heads * model.n_layers),
    )


def non_negative_least_squares(rows: FloatArray, values: FloatArray, start: FloatArray) -> FloatArray:
    """Return x ≥ 0 that minimises |rows x - values|², by coordinate descent from `start`."""
    scaled = rows * start
    gram, target = scaled.T @ scaled, scaled.T @ values
    x = np.ones(len(start))
    for _ in range(N_SWEEPS):
        for index in range(len(x)):
            gradient = gram[index] @ x - target[index]
            x[index] = max(0.0, x[index] - gradient / gram[index, index])
    solution: FloatArray = x * start
    return solution


def with_speed(plan: Plan, speed: Speed | None, device: DeviceType = "cpu") -> Plan:
    """Return the plan with the time and cost of its runs by a speed measured on this type of device.

    On a GPU with the compilation, where it pays. The plan is returned unchanged without a speed, and where
    the experiment gives `estimate.flops_per_second`.
    """
    assumed = plan.experiment.estimate
    if speed is None or assumed.flops_per_second is not None:
        return plan
    seconds = [estimate.with_compilation(speed.run_s(run), device) for run in plan.runs]
    return replace(
        plan,
        runs=tuple(
            replace(run, time_s=taken, cost=estimate.cost(taken, assumed))
            for run, taken in zip(plan.runs, seconds, strict=True)
        ),
    )


def to_measure(runs: Sequence[PlannedRun], speed: Speed | None, at_most: int) -> list[RunConfig]:
    """Return the runs to measure, at most `at_most`: the longest, then each the farthest from those before.

    None where runs without a similar measurement take little of the time of `runs`.
    """
    known = _places(() if speed is None else speed.steps)
    far = np.array([_nearest(run.config, known) for run in runs])
    seconds = np.array([run.time_s for run in runs])
    if not seconds[far >= COVERED].sum() > WORTH * seconds.sum():
        return []
    chosen: list[RunConfig] = []
    far = np.where(np.isinf(far), seconds, far)  # nothing is known: first the longest run
    while len(chosen) < at_most and far.max() > SPACING:
        run = runs[int(far.argmax())].config
        chosen.append(run)
        terms, tokens = step_terms(run, run.batch_tokens), run.batch_tokens
        known = np.vstack([known, _places([StepTime(terms=terms, tokens=tokens, seconds=1.0)])])
        far = np.array([_nearest(run.config, known) for run in runs])
    return chosen


def _nearest(run: RunConfig, known: FloatArray) -> float:
    """Return the distance of a step of `run` from the nearest of the places (n, 3); infinite without any.

    Another number of layers adds OTHER_DEPTH.
    """
    if not len(known):
        return math.inf
    terms = step_terms(run, run.batch_tokens)
    distances = _distances(known, terms, run.batch_tokens)
    return float((distances + OTHER_DEPTH * (known[:, 0] != terms[1])).min())


def makespan(seconds: Sequence[float], n_workers: int) -> float:
    """Return the time until workers that take the longest run first have finished all.

    >>> makespan([3.0, 2.0, 2.0, 1.0], 2)
    4.0
    """
    free = [0.0] * n_workers
    for taken in sorted(seconds, reverse=True):
        first = min(range(n_workers), key=lambda index: free[index])
        free[first] += taken
    return max(free)
