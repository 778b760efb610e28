"""Repeated data: the law of Muennighoff et al. 2023, and the bound on early stopping of Kaplan et al. 2020.

Legend: N parameters, D tokens, U unique tokens, L loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from scripts.evidence.markdown import interval, number, rows
from scripts.evidence.studies import STUDIES, fitted, grid_points
from sweep.fit.laws.repetition import DataConstrainedLaw
from sweep.report.figures.style import DARK, GREY, count_ticks, loss_ticks, new_figure, style

COLORS = ("#56B4E9", "#0072B2", "#E69F00", "#D55E00")  # Okabe & Ito 2008
CHI2 = 2.71  # 90 % point of chi-squared with one degree of freedom
PUBLISHED = {"R_D_star": 15.39, "R_N_star": 5.31}  # Muennighoff et al. 2023, appendix A


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Runs of one size on a fixed pool of unique tokens, by length."""

    n_params: float
    points: tuple[tuple[float, float], ...]  # tokens and loss of every run, ascending
    n_tokens_unique: float

    @property
    def best(self) -> tuple[float, float]:
        """Tokens and loss of the run with the lowest loss."""
        return min(self.points, key=lambda one: one[1])

    @property
    def inside(self) -> bool:
        """True if a longer run has a higher loss."""
        return self.best != self.points[-1]

    def bound(self, surface: Mapping[str, float]) -> float:
        """Return the tokens with which new data would give the lowest loss: a lower bound of those needed.

        Source: Kaplan et al. 2020, eq. 5.7, with D for S; `surface` has the constants of L(N, D).
        """
        limit = surface["E"] + surface["A"] * self.n_params ** -surface["alpha"]
        return float((surface["B"] / (self.best[1] - limit)) ** (1 / surface["beta"]))


def repetition_law() -> DataConstrainedLaw:
    """Return the law of the repetition study."""
    law = fitted(STUDIES["repetition"]).laws["data_constrained"]
    assert isinstance(law, DataConstrainedLaw)
    return law


def stops() -> list[Stop]:
    """Return the runs by size, smallest first."""
    by_size: dict[float, list[tuple[float, float]]] = {}
    points = grid_points(STUDIES["repetition"])
    pool = max(point.n_tokens_unique or 0.0 for point in points)
    for point in points:
        assert point.n_params is not None
        assert point.n_tokens is not None
        assert point.loss is not None
        by_size.setdefault(point.n_params, []).append((point.n_tokens, point.loss))
    return [
        Stop(n_params=size, points=tuple(sorted(runs)), n_tokens_unique=pool)
        for size, runs in sorted(by_size.items())
    ]


def profile_interval(law: DataConstrainedLaw, n_points: int) -> tuple[float, float]:
    """Return the 90 % interval of R_D* by its profile, with deviance n ln(objective / least) below CHI2."""
    r_d, _, objective = law.profile.rows.T
    inside = r_d[n_points * np.log(objective / objective.min()) <= CHI2]
    return float(inside.min()), float(inside.max())


def repetition_table() -> list[str]:
    """Return R_D* and R_N* with those published."""
    law, n_points = repetition_law(), fitted(STUDIES["repetition"]).n_points
    shown = {"R_D_star": interval(law.constants["R_D_star"], profile_interval(law, n_points), 1)}
    body = [
        [name, shown.get(key, f"{law.constants[key]:.1f}"), f"{PUBLISHED[key]:.1f}"]
        for key, name in (("R_D_star", "R_D*"), ("R_N_star", "R_N*"))
    ]
    return rows(["constant", "fitted", "Muennighoff et al. 2023"], body)


def stop_table() -> list[str]:
    """Return the lowest loss of each size with its epochs and the bound on them."""
    surface, body = fitted(STUDIES["cpu_stdlib"]).laws["parametric"].constants, []
    for one in stops():
        tokens, loss = one.best
        pool = one.n_tokens_unique
        reached = f"{tokens / pool:.1f}" if one.inside else f"over {tokens / pool:.1f}"
        last = one.points[-1]
        body.append(
            [
                number(one.n_params),
                f"{loss:.3f}",
                reached,
                f"{one.bound(surface) / pool:.1f}",
                f"{last[1]:.3f} at {last[0] / pool:.1f}",
            ]
        )
    return rows(["N", "lowest loss", "epochs", "bound on epochs", "loss of the longest run"], body)


def repetition_figure() -> Figure:
    """Draw the loss against the epochs by size, with the law and what new data would give."""
    law = repetition_law()
    with style():
        figure, (axes,) = new_figure(width=6.4, height=3.8)
        for one, color in zip(stops(), COLORS, strict=True):
            tokens, loss = np.array(one.points).T
            grid = np.geomspace(tokens[0], tokens[-1], 80)
            pool = np.minimum(grid, one.n_tokens_unique)
            axes.plot(tokens / one.n_tokens_unique, loss, "o", color=color, ms=4, label=number(one.n_params))
            axes.plot(grid / one.n_tokens_unique, law.loss(one.n_params, grid, pool), color=color, lw=1.2)
            new = law.loss(one.n_params, grid, grid)
            axes.plot(grid / one.n_tokens_unique, new, color=color, lw=0.8, ls=":")
        axes.axvline(1.0, color=GREY, lw=0.8)
        axes.set(xscale="log", yscale="log", xlabel="epochs D/U", ylabel="held-out loss (nats per token)")
        loss_ticks(axes.yaxis)
        count_ticks(axes.xaxis)
        axes.set_title("lines: fitted law; dotted: the same law with new data", loc="left")
        axes.legend(title="parameters", labelcolor=DARK)
        return figure
