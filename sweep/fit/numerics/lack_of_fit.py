"""Whether runs scatter about a fitted form more than they ought to: then the form is wrong, or a run is.

Legend: L loss; RSS residual sum of squares of ln L.
"""

from __future__ import annotations

import math

from sweep.fit.numerics.profile import NO_NOISE
from sweep.fit.table.observations import RunNoise

DOUBTFUL = 0.01  # probability of such a ratio by chance, below which the form is doubted


def judged_noise(residuals: RunNoise, replicates: RunNoise | None) -> tuple[RunNoise, tuple[str, ...]]:
    """What a new run's ln L scatters by about a form, and a sentence where the points speak against it.

    `residuals` are of least squares about the form, `replicates` the spread within cells. The test for lack
    of fit: F = ((RSS - RSS_within) / (nu - nu_within)) / (RSS_within / nu_within). Source: Draper & Smith
    1998, section 2.1. Where it doubts the form, the residuals tell a new run's scatter, not the replicates.
    """
    if replicates is None:
        return residuals, ()
    squares, within = (noise.sd**2 * noise.n_dof for noise in (residuals, replicates))
    n_dof = residuals.n_dof - replicates.n_dof
    if n_dof < 1 or squares <= within:
        return replicates, ()
    ratio = (squares - within) / n_dof / replicates.sd**2
    probability = _chance(n_dof, replicates.n_dof, ratio)
    if probability >= DOUBTFUL:
        return replicates, ()
    return doubted(residuals), (
        f"the points speak against this form: they scatter by {residuals.sd:.2%} about it, and runs of one "
        f"cell by {replicates.sd:.2%} (F = {ratio:.3g} on {n_dof} and {replicates.n_dof} degrees, p = "
        f"{probability:.1g}): its intervals know of noise, not of what the form gets wrong",
    )


def misfit_warning(residuals: RunNoise, free: RunNoise) -> tuple[str, ...]:
    """A sentence where a form leaves more than the surface of five constants does on the same points.

    The ratio of their variances against F's distribution; residuals of the same points are alike, which makes
    that milder than it says.
    """
    if residuals.sd <= free.sd or residuals.sd**2 <= NO_NOISE:
        return ()
    ratio = (residuals.sd / free.sd) ** 2 if free.sd**2 > NO_NOISE else math.inf
    if _chance(residuals.n_dof, free.n_dof, ratio) >= DOUBTFUL:
        return ()
    return (
        f"the points speak against this form: they scatter by {residuals.sd:.2%} about it, and by "
        f"{free.sd:.2%} about E + A/N^alpha + B/D^beta: read parametric or isoflop instead",
    )


def doubted(residuals: RunNoise) -> RunNoise:
    """The same scatter, marked as more than noise."""
    return RunNoise(sd=residuals.sd, n_dof=residuals.n_dof, source="misfit")


def _chance(n_dof: int, n_dof_below: int, ratio: float) -> float:
    from scipy.special import fdtrc  # slow to import, as all of scipy

    return 0.0 if math.isinf(ratio) else float(fdtrc(n_dof, n_dof_below, ratio))
