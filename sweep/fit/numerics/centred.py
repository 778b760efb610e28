"""The surface L = E + A/N^alpha + B/D^beta in centred logarithms, with exact derivatives for `minimise`.

Shapes: k starts or resamples, n points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sweep.fit.numerics.minimise import FloatArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CentredData:
    """Points in centred logarithms: the model ln L of L = E + A/N^alpha + B/D^beta.

    theta = (a, b, e, alpha, beta) with a = ln A, b = ln B, e = ln E, all in centred units. Centring makes the
    result independent of the units of N, D and L, and the five directions comparable in size.
    """

    u: FloatArray  # (n,) ln N - center_n
    v: FloatArray  # (n,) ln D - center_d
    y: FloatArray  # (n,) ln L - center_l
    center_n: float
    center_d: float
    center_l: float
    powers_u: FloatArray  # (n, 3): 1, u, u^2
    powers_v: FloatArray  # (n, 3): 1, v, v^2
    cross: FloatArray  # (n, 4): 1, u, v, uv

    is_exact: ClassVar[bool] = True
    least_damping: ClassVar[float] = 0.0
    relative_decrease: ClassVar[float] = 1e-13
    max_iterations: ClassVar[int] = 200

    @classmethod
    def of(cls, n_params: FloatArray, n_tokens: FloatArray, loss: FloatArray) -> CentredData:
        """Centre the logarithms of three arrays of shape (n,)."""
        logs = [np.log(values) for values in (n_params, n_tokens, loss)]
        center_n, center_d, center_l = (float(values.mean()) for values in logs)
        u, v, y = logs[0] - center_n, logs[1] - center_d, logs[2] - center_l
        ones = np.ones_like(u)
        return cls(
            u=u,
            v=v,
            y=y,
            center_n=center_n,
            center_d=center_d,
            center_l=center_l,
            powers_u=np.stack([ones, u, u * u], axis=1),
            powers_v=np.stack([ones, v, v * v], axis=1),
            cross=np.stack([ones, u, v, u * v], axis=1),
        )

    def from_centred(self, theta: FloatArray) -> FloatArray:
        """Return centred theta (..., 5) as (a, b, e, alpha, beta) of the original units."""
        a, b, e, alpha, beta = np.moveaxis(theta, -1, 0)
        shift = self.center_l
        parts = [a + shift + alpha * self.center_n, b + shift + beta * self.center_d, e + shift, alpha, beta]
        return np.stack(parts, axis=-1)

    def evaluate(self, theta: FloatArray) -> tuple[FloatArray, ...]:
        """Return ln L (k, n), and the shares of A N^-alpha and of B D^-beta in L."""
        a, b, e, alpha, beta = theta.T[:, :, None]
        share_n = np.exp(a - alpha * self.u)
        share_d = np.exp(b - beta * self.v)
        prediction = share_n + share_d
        prediction += np.exp(e)
        share_n /= prediction
        share_d /= prediction
        return np.log(prediction), share_n, share_d

    def derivatives(
        self, theta: FloatArray, reused: tuple[FloatArray, ...], psi: FloatArray, second: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the gradient (k, 5) and exact Hessian (k, 5, 5).

        With shares p and g = d ln L / d theta = (p_n, p_d, p_e, -u p_n, -v p_d): gradient = -sum psi g and,
        because ln L is a log-sum-exp of functions linear in theta, Hessian = sum [(psi' + psi) g g' -
        psi sum_k p_k z_k z_k'], z_k the gradient of each exponent.
        """
        p_n, p_d = reused
        p_e = np.maximum(1.0 - p_n - p_d, 0.0)
        first_n, first_d = (psi * p_n) @ self.powers_u, (psi * p_d) @ self.powers_v
        first_e = np.einsum("kn,kn->k", psi, p_e)
        gradient = -np.stack([first_n[:, 0], first_d[:, 0], first_e, -first_n[:, 1], -first_d[:, 1]], axis=1)
        hessian = self._outer_products(second + psi, p_n, p_d, p_e)
        for i, j, first in ((0, 3, first_n), (1, 4, first_d)):
            hessian[:, i, i] -= first[:, 0]
            hessian[:, i, j] += first[:, 1]
            hessian[:, j, i] += first[:, 1]
            hessian[:, j, j] -= first[:, 2]
        hessian[:, 2, 2] -= first_e
        return gradient, hessian

    def _outer_products(
        self, second: FloatArray, p_n: FloatArray, p_d: FloatArray, p_e: FloatArray
    ) -> FloatArray:
        """Sum over points of second * g g', as matrix products with the powers of u and v; (k, 5, 5)."""
        s_n, s_d = second * p_n, second * p_d
        nn, nd, ne = (s_n * p_n) @ self.powers_u, (s_n * p_d) @ self.cross, (s_n * p_e) @ self.powers_u[:, :2]
        dd, de = (s_d * p_d) @ self.powers_v, (s_d * p_e) @ self.powers_v[:, :2]
        ee = np.einsum("kn,kn->k", second, p_e * p_e)
        hessian = np.empty((len(second), 5, 5))
        upper = {
            (0, 0): nn[:, 0], (0, 3): -nn[:, 1], (3, 3): nn[:, 2],
            (0, 1): nd[:, 0], (1, 3): -nd[:, 1], (0, 4): -nd[:, 2], (3, 4): nd[:, 3],
            (0, 2): ne[:, 0], (2, 3): -ne[:, 1],
            (1, 1): dd[:, 0], (1, 4): -dd[:, 1], (4, 4): dd[:, 2],
            (1, 2): de[:, 0], (2, 4): -de[:, 1], (2, 2): ee,
        }  # fmt: skip
        for (i, j), values in upper.items():
            hessian[:, i, j] = hessian[:, j, i] = values
        return hessian
