"""Draws of the parametric surface: which resampling scheme, and each resample minimised from the estimate.

Few points: data sets simulated from the fit (case resampling repeats points until too few are distinct, and
its intervals are half as wide again as they should be). Many: cases. Points that share trunks: whole trunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.centred import CentredData
from sweep.fit.numerics.bootstrap import case_weights, has_too_few_trunks, simulated_targets
from sweep.fit.numerics.estimation import FREE, SurfaceForm, linear_model, linear_slopes, loss_of
from sweep.fit.numerics.identifiability import EXPONENT_BOUNDS
from sweep.fit.numerics.lack_of_fit import judged_noise
from sweep.fit.numerics.levenberg import Jacobian, Model, minimise_model
from sweep.fit.numerics.minimise import minimise
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import RunNoise

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SQUARES = 1e6  # a Huber delta no residual reaches
FEW_POINTS = 60  # fewer are simulated, unless they share trunks


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Resampled:
    """What resampling gave."""

    draws: FloatArray  # (n_draws, 5) usable, centred
    n_degenerate: int
    scheme: str
    residual_sd: float  # of ln L, over the degrees of freedom left


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Block:
    """Some resamples: case weights, or ln L simulated from the fit; the other is None."""

    n_rows: int
    weights: FloatArray | None = None
    targets: FloatArray | None = None

    def __len__(self) -> int:
        return self.n_rows


def blocks(
    prediction: FloatArray, sd: float, n_dof: int, cluster: IntArray, config: FitConfig
) -> tuple[str, Iterator[Block]]:
    """The scheme for points with fitted ln L `prediction` (n,), and its resamples in blocks."""
    n, seed = _n_resamples(cluster, config), config.seed
    shared = int(cluster.max()) + 1 < len(prediction)
    if shared or len(prediction) >= FEW_POINTS:
        cases = case_weights(cluster, n, seed)
        return "trunks" if shared else "cases", (Block(n_rows=len(w), weights=w) for w in cases)
    simulated = simulated_targets(prediction, sd, n_dof, n, seed)
    return "simulated from the fit", (Block(n_rows=len(t), targets=t) for t in simulated)


def _n_resamples(cluster: IntArray, config: FitConfig) -> int:
    return 0 if has_too_few_trunks(cluster) else config.n_bootstrap


def resample_surface(
    data: CentredData, theta: FloatArray, cluster: IntArray, config: FitConfig, form: SurfaceForm = FREE
) -> Resampled:
    """Resample and refit from centred theta (5,).

    Raises:
        RefusedError: most resamples have no usable minimum.
    """
    a, b, e, alpha, beta = theta
    prediction = np.log(np.exp(a - alpha * data.u) + np.exp(b - beta * data.v) + np.exp(e))
    n_dof = max(1, len(data.y) - form.n_free)
    sd = math.sqrt(float(((data.y - prediction) ** 2).sum()) / n_dof)
    scheme, resamples = blocks(prediction, sd, n_dof, cluster, config)
    parts = [np.empty((0, 5))]
    for block in resamples:
        found, converged = _refit(data, theta, block, config.huber_delta, form)
        low, high = EXPONENT_BOUNDS
        parts.append(found[converged & ((found[:, 3:] >= low) & (found[:, 3:] <= high)).all(axis=1)])
    return _resampled(parts, scheme, sd, _n_resamples(cluster, config))


def least_squares_noise(data: CentredData, theta: FloatArray, form: SurfaceForm = FREE) -> RunNoise:
    """What points scatter by about the least-squares surface of a form, from centred theta (5,) near it."""
    n_dof = max(1, len(data.y) - form.n_free)
    squares = 2.0 * float(minimise(data, theta[None], SQUARES, basis=form.basis).objective[0])
    return RunNoise(sd=math.sqrt(squares / n_dof), n_dof=n_dof, source="residuals")


def surface_noise(
    data: CentredData, theta: FloatArray, form: SurfaceForm, residual_sd: float, replicates: RunNoise | None
) -> tuple[RunNoise, tuple[str, ...]]:
    """`judged_noise` of a surface fitted by Huber's loss: replicates are held against its least squares."""
    if replicates is None:
        n_dof = max(1, len(data.y) - form.n_free)
        return RunNoise(sd=residual_sd, n_dof=n_dof, source="residuals"), ()
    return judged_noise(least_squares_noise(data, theta, form), replicates)


def resample_model(
    model: Model,
    jacobian: Jacobian | None,
    theta: FloatArray,
    log_loss: FloatArray,
    cluster: IntArray,
    config: FitConfig,
    usable: Callable[[FloatArray], npt.NDArray[np.bool_]],
) -> Resampled:
    """The same for any model of ln L at theta (p,); `usable` tells which rows of draws (k, p) are.

    The noise's deviation is that about the least-squares fit: about Huber's, which is no least squares, it is
    too large, and intervals of few points come out too wide (docs/science_fit.md).

    Raises:
        RefusedError: most resamples have no usable minimum.
    """
    prediction = model(theta[None])[0]
    n_dof = max(1, len(log_loss) - len(theta))
    nearest = minimise_model(model, theta[None], log_loss, SQUARES, jacobian=jacobian)
    sd = math.sqrt(2.0 * float(nearest.objective[0]) / n_dof)
    scheme, resamples = blocks(prediction, sd, n_dof, cluster, config)
    parts = [np.empty((0, len(theta)))]
    for block in resamples:
        start = np.broadcast_to(theta, (len(block), len(theta))).copy()
        goal = log_loss if block.targets is None else block.targets
        solution = minimise_model(
            model, start, goal, config.huber_delta, weights=block.weights, jacobian=jacobian
        )
        parts.append(solution.theta[np.isfinite(solution.objective) & usable(solution.theta)])
    return _resampled(parts, scheme, sd, _n_resamples(cluster, config))


def _resampled(parts: list[FloatArray], scheme: str, sd: float, n_resamples: int) -> Resampled:
    draws = np.concatenate(parts)
    n_degenerate = n_resamples - len(draws)
    check_draws(len(draws), n_resamples)
    return Resampled(draws=draws, n_degenerate=n_degenerate, scheme=scheme, residual_sd=sd)


def _refit(
    data: CentredData,
    theta: FloatArray,
    block: Block,
    delta: float,
    form: SurfaceForm,
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Theta (k, 5) and convergence of each resample of a block."""
    weights, targets = block.weights, block.targets
    if form.residuals == "log":
        start = np.broadcast_to(theta, (len(block), 5)).copy()
        solution = minimise(data, start, delta, weights=weights, targets=targets, basis=form.basis)
        return solution.theta, solution.converged
    basis = np.eye(5) if form.basis is None else form.basis
    losses = loss_of(data) if targets is None else np.exp(targets + data.center_l)
    steps = minimise_model(
        linear_model(data, theta, basis),
        np.zeros((len(block), basis.shape[1])),
        losses,
        delta,
        weights=weights,
        jacobian=linear_slopes(data, theta, basis),
    )
    return theta + steps.theta @ basis.T, steps.converged


def check_draws(n_usable: int, n_resamples: int) -> None:
    """Refuse when most resamples were degenerate."""
    n_degenerate = n_resamples - n_usable
    if 2 * n_degenerate > n_resamples:
        raise RefusedError(
            "degenerate_resamples",
            f"{n_degenerate} of {n_resamples} resamples have no usable minimum, so the law hangs "
            f"on single points: more points, or a wider range of N and D, would help",
        )
