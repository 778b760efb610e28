"""Sample efficiency: tokens that each size needs to reach a loss, from curves with one schedule.

Source of the claim: Kaplan et al. 2020, figures 2 and 19. Legend: N parameters, D tokens, L loss.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scripts.evidence.curves import Curve, read_curves
from scripts.evidence.markdown import number, rows
from scripts.evidence.studies import STUDIES, fitted
from sweep.report.figures.style import BUDGET_COLORS, DARK, count_ticks, loss_ticks, new_figure, style

LOSSES = (4.8, 4.5, 4.2, 3.9)  # nats per token


def tokens_by_size(loss: float) -> list[tuple[Curve, float]]:
    """Return the curves that reach a loss with their tokens there."""
    found = [(curve, curve.tokens_to(loss)) for curve in read_curves()]
    return [(curve, tokens) for curve, tokens in found if tokens is not None]


def surface_tokens(n_params: float, loss: float) -> float | None:
    """Return the tokens to a loss by the surface of cpu_stdlib; None if a size never reaches it."""
    known = fitted(STUDIES["cpu_stdlib"]).laws["parametric"].constants
    excess = loss - known["E"] - known["A"] * n_params ** -known["alpha"]
    return float((known["B"] / excess) ** (1 / known["beta"])) if excess > 0 else None


def sample_table() -> list[str]:
    """Return the tokens of each size to each loss, and those by the surface in parentheses."""
    body = []
    for curve in read_curves():
        cells = [number(curve.n_params)]
        for loss in LOSSES:
            tokens, surface = curve.tokens_to(loss), surface_tokens(curve.n_params, loss)
            shown = "–" if tokens is None else number(tokens)
            cells.append(f"{shown} ({'–' if surface is None else number(surface)})")
        body.append(cells)
    slopes = [_slope(loss) for loss in LOSSES]
    body.append(["exponent of N", *(f"{slope:.2f}" for slope in slopes)])
    return rows(["N", *(f"tokens to {loss}" for loss in LOSSES)], body)


def _slope(loss: float) -> float:
    found = tokens_by_size(loss)
    sizes, tokens = np.log([curve.n_params for curve, _ in found]), np.log([tokens for _, tokens in found])
    return float(np.polyfit(sizes, tokens, 1)[0])


def sample_figure() -> Figure:
    """Draw the training curves against tokens by size, and the tokens to some losses against size."""
    curves = read_curves()
    with style():
        figure, (left, right) = new_figure(width=9.0, height=3.6, n_panels=2)
        for row, curve in enumerate(curves):
            color = BUDGET_COLORS(row / (len(curves) - 1))
            left.plot(curve.n_tokens, curve.loss, color=color, lw=1, label=number(curve.n_params))
        left.set(xscale="log", yscale="log", xlabel="tokens", ylabel="training loss (nats per token)")
        left.set_xlim(1e4, None)
        left.set_ylim(3.4, 6.5)
        loss_ticks(left.yaxis)
        count_ticks(left.xaxis)
        left.legend(title="parameters", labelcolor=DARK, ncols=2)
        for row, loss in enumerate(LOSSES):
            found = tokens_by_size(loss)
            color = BUDGET_COLORS(row / (len(LOSSES) - 1))
            sizes = [curve.n_params for curve, _ in found]
            right.plot(sizes, [tokens for _, tokens in found], "o-", color=color, ms=4, label=f"{loss}")
        right.set(xscale="log", yscale="log", xlabel="parameters", ylabel="tokens to the loss")
        count_ticks(right.xaxis)
        count_ticks(right.yaxis)
        right.legend(title="loss", labelcolor=DARK)
        return figure
