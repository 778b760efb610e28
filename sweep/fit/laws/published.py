"""Published laws as Law objects: optima without intervals, in the counting convention of their authors.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Law, Optimum
from sweep.fit.laws.catalogue import PublishedLaw, published
from sweep.fit.laws.surface import surface_loss, surface_optimum
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import RunNoise

FloatArray = npt.NDArray[np.float64]

SIX_ND = FlopsPerToken.six_nd()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class CatalogueLaw(Law):
    """A published law; quantities that its paper does not give are NaN and are omitted from predictions."""

    name: str
    published: PublishedLaw
    confidence: float = 0.95
    noise: RunNoise | None = None
    warnings: tuple[str, ...] = ()

    @property
    def n_draws(self) -> int:
        """Zero: papers publish no draws."""
        return 0

    @property
    def flops_per_token(self) -> FlopsPerToken:
        """C = 6 N D; deviations are in the law's `convention`."""
        return SIX_ND

    def loss(self, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike) -> FloatArray:
        """Return L(N, D) of a surface, NaN for other laws; arguments broadcast."""
        if self.published.theta is None:
            shape = np.broadcast_shapes(np.shape(n_params), np.shape(n_tokens))
            return np.full(shape, np.nan)
        return surface_loss(np.array(self.published.theta), n_params, n_tokens)

    def optimum(self, flops: FloatArray) -> Optimum:
        """Return the optimum of the published surface or power laws at `flops` (k,)."""
        law = self.published
        if law.theta is not None:
            return surface_optimum(np.array(law.theta), flops, SIX_ND)
        nothing = np.full_like(flops, np.nan)
        return Optimum(
            n_params_opt=nothing if law.n_opt is None else law.n_opt[0] * flops ** law.n_opt[1],
            n_tokens_opt=nothing if law.d_opt is None else law.d_opt[0] * flops ** law.d_opt[1],
            loss_opt=nothing if law.loss_opt is None else (law.loss_opt[0] / flops) ** law.loss_opt[1],
        )

    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """Return empty arrays: there are no draws."""
        nothing = np.empty((0, len(flops)))
        return Optimum(n_params_opt=nothing, n_tokens_opt=nothing, loss_opt=nothing)

    @property
    def surface_theta(self) -> FloatArray | None:
        """The published surface (5,), or None."""
        return None if self.published.theta is None else np.array(self.published.theta)

    def loss_off_optimum(self, flops: float, factor: float) -> float | None:
        """Return the loss at budget `flops` with `factor` times the optimal N; None without a surface."""
        if self.published.theta is None:
            return None
        n_params = factor * self.n_params_opt(flops)
        return float(self.loss(n_params, flops / (6.0 * n_params)))

    @property
    def constants(self) -> dict[str, float]:
        """The exponents a and b."""
        a, b = self.exponents
        return {"a": a, "b": b}

    @property
    def exponents(self) -> tuple[float, float]:
        """a and b of N_opt ∝ C^a, D_opt ∝ C^b."""
        law = self.published
        if law.theta is not None:
            alpha, beta = law.theta[3:]
            return beta / (alpha + beta), alpha / (alpha + beta)
        assert law.n_opt is not None
        assert law.d_opt is not None
        return law.n_opt[1], law.d_opt[1]

    @property
    def notes(self) -> tuple[str, ...]:
        """Source, counting convention, range, rounding and remark, one sentence each."""
        law = self.published
        low, high = law.flops_range
        rounded = ("its constants are rounded in print",) if law.rounded else ()
        remark = (law.remark,) if law.remark else ()
        return (
            law.source,
            f"counts {law.convention}",
            f"fitted from {low:.3g} to {high:.3g} FLOPs ({law.range_source})",
            *rounded,
            *remark,
        )

    def to_json(self) -> dict[str, Any]:
        """Return its entry in fit.json; only the name is read back, the rest is information for readers."""
        law = self.published
        return {
            "published": self.name,
            **self.constants,
            "ci": {},
            "confidence": self.confidence,
            "source": law.source,
            "convention": law.convention,
            "flops_range": list(law.flops_range),
            "range_source": law.range_source,
            "rounded": law.rounded,
            "warnings": [law.remark] if law.remark else [],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`."""
        return cls(name=document["published"], published=published(document["published"]))


def catalogue_law(name: str) -> CatalogueLaw:
    """Return the published law `name`.

    Raises:
        InputError: there is no published law of that name.
    """
    return CatalogueLaw(name=name, published=published(name))
