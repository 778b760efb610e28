"""FLOPs per token f(N) of the constraint C = n_tokens * f(N), with its derivatives in ln N.

Legend: N parameters, D tokens, C training FLOPs; f(N) = C / D.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # scipy takes long to import, and few curves are extended
    from scipy.interpolate import PchipInterpolator

FloatArray = npt.NDArray[np.float64]
Constraint = Literal["exact", "6nd"]

MAX_DEGREE = 3  # of ln f in ln N: leaves < 1e-4 on the decoders planned here, over two decades of N
SAME_FAMILY = 0.02  # of ln f: planned sizes this near the trained ones belong to their family
SAME_SIZE = 0.01  # sizes closer than this in ln N do not count as distinct for the degree


def distinct_sizes(log_n: FloatArray) -> FloatArray:
    """Return the ln N that count as different sizes, ascending."""
    ordered = np.sort(log_n)
    first = np.concatenate([[True], np.diff(ordered) > SAME_SIZE])
    return np.asarray(ordered[first], dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopsPerToken:
    """ln f as a polynomial in t = ln N - center between the smallest and largest N; its tangent beyond."""

    kind: Constraint
    center: float
    low: float  # t of the smallest size
    high: float  # t of the largest size
    coefficients: tuple[float, ...]  # of ln f, constant first
    beyond: PchipInterpolator | None = None  # ln f of ln N past the largest size, where shapes are planned

    @classmethod
    def six_nd(cls) -> FlopsPerToken:
        """Return f = 6 N. Source: Kaplan et al. 2020, section 2.1; Hoffmann et al. 2022, section 3.3."""
        return cls(kind="6nd", center=0.0, low=0.0, high=0.0, coefficients=(math.log(6.0), 1.0))

    @classmethod
    def through(cls, n_params: FloatArray, flops_per_token: FloatArray) -> FlopsPerToken:
        """Fit points (N, f) by least squares, with the highest degree up to 3 that rises everywhere."""
        log_n = np.log(n_params)
        center = float(log_n.mean())
        t, ratio = log_n - center, np.log(flops_per_token) - log_n
        n_distinct = len(distinct_sizes(t))
        low, high = float(t.min()), float(t.max())
        for degree in range(min(MAX_DEGREE, n_distinct - 1), -1, -1):
            fitted = np.zeros(max(degree, 1) + 1)
            fitted[: degree + 1] = np.polynomial.polynomial.polyfit(t, ratio, degree)
            fitted[0] += center
            fitted[1] += 1.0
            curve = cls(
                kind="exact", center=center, low=low, high=high, coefficients=tuple(map(float, fitted))
            )
            if degree == 0 or curve.slope(np.exp(center + np.linspace(low, high, 65))).min() > 0:
                return curve
        raise AssertionError("degree 0 always returns")

    def extended(self, n_params: FloatArray, flops_per_token: FloatArray) -> FlopsPerToken:
        """Return the same curve, continued past its largest N through the plannable sizes (N, f).

        The sizes are used only if they agree with the points at their largest N within SAME_FAMILY; their
        ln f is shifted by the remaining gap, so that f stays continuous. The 6 N convention is not extended.
        """
        from scipy.interpolate import PchipInterpolator

        edge = self.center + self.high
        log_n, log_f = np.log(n_params), np.log(flops_per_token)
        if self.kind == "6nd" or not log_n.min() <= edge < log_n.max():
            return self
        family = PchipInterpolator(log_n, log_f)
        gap = float(self.log_flops(np.array(math.exp(edge))) - family(edge))
        if abs(gap) > SAME_FAMILY:
            return self
        return dataclasses.replace(self, beyond=PchipInterpolator(log_n, log_f + gap, extrapolate=False))

    def _split(self, n_params: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return t clipped to the range of the points, and the part of t beyond it."""
        t = np.log(n_params) - self.center
        inside = np.clip(t, self.low, self.high)
        return inside, t - inside

    def _derivative(self, t: FloatArray, order: int) -> FloatArray:
        coefficients = np.polynomial.polynomial.polyder(np.array(self.coefficients), order)
        return np.asarray(np.polynomial.polynomial.polyval(t, coefficients), dtype=np.float64)

    def __call__(self, n_params: npt.ArrayLike) -> FloatArray:
        """Return FLOPs per token at N, in the shape of `n_params`."""
        return np.exp(self.log_flops(np.asarray(n_params, dtype=np.float64)))

    def log_flops(self, n_params: FloatArray) -> FloatArray:
        """Return ln f at N."""
        inside, beyond = self._split(n_params)
        tangent = self._derivative(inside, 0) + beyond * self._derivative(inside, 1)
        return self._planned(n_params, tangent, 0)

    def slope(self, n_params: FloatArray) -> FloatArray:
        """Return d ln f / d ln N at N."""
        return self._planned(n_params, self._derivative(self._split(n_params)[0], 1), 1)

    def curvature(self, n_params: FloatArray) -> FloatArray:
        """Return d^2 ln f / d (ln N)^2 at N; zero beyond the points."""
        inside, beyond = self._split(n_params)
        return self._planned(n_params, np.where(beyond == 0, self._derivative(inside, 2), 0.0), 2)

    def _planned(self, n_params: FloatArray, values: FloatArray, order: int) -> FloatArray:
        """Replace `values` past the largest N by the planned family's derivative, as far as it extends."""
        if self.beyond is None:
            return values
        log_n = np.log(n_params)
        family = np.asarray(self.beyond(log_n, nu=order), dtype=np.float64)
        return np.where((log_n > self.center + self.high) & np.isfinite(family), family, values)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as `from_json` reads them."""
        return {
            "kind": self.kind,
            "center": self.center,
            "low": self.low,
            "high": self.high,
            "coefficients": list(self.coefficients),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FlopsPerToken:
        """Read what `to_json` returns."""
        return cls(**{**document, "coefficients": tuple(document["coefficients"])})
