"""Power laws through optima: N_opt and D_opt in C, and L_opt = E + K C^-gamma.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Optimum
from sweep.fit.laws.drawn_law import DrawnLaw

FloatArray = npt.NDArray[np.float64]

CONSTANTS = {"a": 1, "b": 3, "E": 4, "gamma": 6}  # columns of theta
GAMMA_BOUNDS = (1e-3, 2.0)  # published losses have gamma .03 to .2; beyond, E and K are not separable
SMALLEST_SCALE = 1e-200  # stands for K = 0 (losses that do not fall), and has a logarithm
N_GRID = 41
N_ZOOMS = 9  # each narrows the bracket tenfold in ln gamma


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class PowerLaw(DrawnLaw):
    """N_opt = N_0 (C/C_0)^a, D_opt = C / f(N_opt), L_opt = E + K (C/C_0)^-gamma, C_0 = flops_center.

    theta = (ln N_0, a, ln D_0, b, E, ln K, gamma), under `coefficients` in fit.json. b is the slope of ln D
    in ln C through the fitted optima, D_0 (C/C_0)^b; predictions of D use C / f(N_opt).
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("ln N_opt", "a", "ln D_opt", "b", "E", "ln K", "gamma")

    flops_center: float

    def named(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return a, b, E and gamma, for theta (..., 7)."""
        return {name: theta[..., column] for name, column in CONSTANTS.items()}

    def with_family(self, n_params: FloatArray, flops_per_token: FloatArray) -> Self:
        """Return the law with FLOPs per token beyond the fitted sizes taken from planned sizes (N, f)."""
        curve = self.flops_per_token.extended(n_params, flops_per_token)
        return dataclasses.replace(self, flops_per_token=curve)

    def _optimum(self, theta: FloatArray, flops: FloatArray) -> Optimum:
        log_n, a, _, _, floor, log_k, gamma = np.moveaxis(theta, -1, 0)[..., None]
        x = np.log(flops / self.flops_center)
        n_params = np.exp(log_n + a * x)
        return Optimum(
            n_params_opt=n_params,
            n_tokens_opt=flops / self.flops_per_token(n_params),
            loss_opt=floor + np.exp(log_k - gamma * x),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the law's entry in fit.json."""
        entry = DrawnLaw.to_json(self)
        del entry["theta"]
        return {**entry, "coefficients": dict(zip(self.COLUMNS, self.theta.tolist(), strict=True))}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`."""
        theta = [document["coefficients"][name] for name in cls.COLUMNS]
        return super(PowerLaw, cls).from_json({**document, "theta": theta})


def power_laws(
    log_c: FloatArray, minima: FloatArray, weights: tuple[FloatArray, FloatArray] | None = None
) -> FloatArray:
    """Fit power laws through minima (..., 3, m) = ln N, ln D, L at `log_c` (m,) or (..., m).

    Returns theta (..., 7) of PowerLaw. ln N = ln N_0 + a log_c and ln D likewise by least squares; L = E + K
    exp(-gamma log_c), E >= 0, by `fit_floor_law`. `weights` are those of N and D, and of L, each (m,); equal
    by default.
    """
    log_c = np.broadcast_to(log_c, minima.shape[:-2] + minima.shape[-1:])
    in_size, in_loss = weights or (np.ones(log_c.shape[-1]),) * 2
    share = in_size / in_size.sum()
    center = (log_c * share).sum(axis=-1, keepdims=True)
    x = log_c - center
    columns = []
    for row in (0, 1):
        y = minima[..., row, :]
        slope = (share * x * y).sum(axis=-1) / (share * x * x).sum(axis=-1)
        columns += [(share * y).sum(axis=-1) - slope * center[..., 0], slope]
    floor, log_k, gamma = fit_floor_law(log_c, minima[..., 2, :], in_loss)
    return np.stack([*columns, floor, log_k, gamma], axis=-1)


def fit_floor_law(
    x: FloatArray, loss: FloatArray, weights: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fit L = E + K exp(-gamma x), E and K not negative, by least squared relative error.

    `x` and `loss` are of shape (..., m), `weights` (m,) are equal by default; returns E, ln K and gamma, each
    of shape (...). Variable projection: for given gamma, E and K solve a linear problem, so only gamma is
    searched, on a grid that is narrowed around its best point. Few minima do not identify E well: read it
    with its interval.
    """
    shape, m = loss.shape[:-1], loss.shape[-1]
    x, loss = (np.broadcast_to(values, (*shape, m)).reshape(-1, m) for values in (x, loss))
    low, high = (np.full(len(loss), bound) for bound in np.log(GAMMA_BOUNDS))
    rows = np.arange(len(loss))
    root = np.sqrt(np.ones(m) if weights is None else weights / weights.mean())
    bounds = low.copy(), high.copy()
    for _ in range(N_ZOOMS):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, N_GRID)
        errors = _project(x, loss, root, np.exp(grid))[2]
        best, step = grid[rows, errors.argmin(axis=1)], (high - low) / (N_GRID - 1)
        low, high = np.maximum(best - 2 * step, bounds[0]), np.minimum(best + 2 * step, bounds[1])
    floor, scale, _ = _project(x, loss, root, np.exp(best)[:, None])
    log_k = np.log(np.maximum(scale[:, 0], SMALLEST_SCALE))
    return floor[:, 0].reshape(shape), log_k.reshape(shape), np.exp(best).reshape(shape)


def _project(
    x: FloatArray, loss: FloatArray, root: FloatArray, gamma: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return E, K >= 0 and the squared relative error for each gamma (k, g), given x and loss (k, m).

    `root` (m,) are the square roots of the weights.
    """
    constant = root / loss
    falling = np.exp(-gamma[:, :, None] * x[:, None, :])
    falling *= constant[:, None, :]
    ff, fc = np.einsum("kgm,kgm->kg", falling, falling), np.einsum("kgm,km->kg", falling, constant)
    cc, c1 = (constant**2).sum(-1)[:, None], (constant @ root)[:, None]
    f1 = falling @ root
    determinant = np.maximum(ff * cc - fc * fc, np.finfo(float).tiny)
    scale, floor = (f1 * cc - c1 * fc) / determinant, (c1 * ff - f1 * fc) / determinant
    without_floor, without_scale = floor < 0, scale < 0
    scale = np.where(without_floor, f1 / ff, np.where(without_scale, 0.0, scale))
    floor = np.where(without_floor, 0.0, np.where(without_scale, c1 / cc, floor))
    falling *= scale[..., None]
    falling += floor[..., None] * constant[:, None, :]
    falling -= root
    return floor, scale, np.einsum("kgm,kgm->kg", falling, falling)
