"""Test for lack of fit: residual scatter about a fitted form against the scatter between equal runs.

Legend: L loss; RSS residual sum of squares of ln L; theta in centred units.
"""

from __future__ import annotations

import math

from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.estimation import FREE, SurfaceForm
from sweep.fit.numerics.minimise import NO_NOISE, SQUARES, FloatArray, minimise
from sweep.fit.table.observations import RunNoise

DOUBTFUL = 0.01  # probability of such a ratio by chance, below which the form is doubted


def judged_noise(residuals: RunNoise, replicates: RunNoise | None) -> tuple[RunNoise, tuple[str, ...]]:
    """Return the scatter of a new run's ln L about a form, and a warning where lack of fit is significant.

    `residuals` are those of least squares about the form, `replicates` the spread within cells of equal runs.
    F = ((RSS - RSS_within) / (nu - nu_within)) / (RSS_within / nu_within). Source: Draper & Smith 1998,
    section 2.1. Where the form is doubted, the scatter is that of the residuals, not of the replicates.
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
        f"lack of fit: residual sd {residuals.sd:.2%} vs {replicates.sd:.2%} between seeds "
        f"(F = {ratio:.3g} on {n_dof} and {replicates.n_dof} degrees of freedom, p = {probability:.1g}); "
        f"intervals cover noise only",
    )


def misfit_warning(residuals: RunNoise, free: RunNoise) -> tuple[str, ...]:
    """Return a warning where a form leaves more scatter than the free surface does on the same points.

    The ratio of the two variances is compared with the F distribution. Residuals of the same points are
    correlated, so the test is milder than its nominal level.
    """
    if residuals.sd <= free.sd or residuals.sd**2 <= NO_NOISE:
        return ()
    ratio = (residuals.sd / free.sd) ** 2 if free.sd**2 > NO_NOISE else math.inf
    if _chance(residuals.n_dof, free.n_dof, ratio) >= DOUBTFUL:
        return ()
    return (
        f"lack of fit: residual sd {residuals.sd:.2%} vs {free.sd:.2%} about E + A/N^alpha + B/D^beta; use "
        f"parametric or isoflop instead",
    )


def doubted(residuals: RunNoise) -> RunNoise:
    """Return the same scatter, marked as more than noise."""
    return RunNoise(sd=residuals.sd, n_dof=residuals.n_dof, source="misfit")


def least_squares_noise(data: CentredData, theta: FloatArray, form: SurfaceForm = FREE) -> RunNoise:
    """Return the scatter about the least-squares surface of a form, from centred theta (5,) near it."""
    n_dof = max(1, len(data.y) - form.n_free)
    squares = 2.0 * float(minimise(data, theta[None], data.y, SQUARES, basis=form.basis).objective[0])
    return RunNoise(sd=math.sqrt(squares / n_dof), n_dof=n_dof, source="residuals")


def surface_noise(
    data: CentredData, theta: FloatArray, form: SurfaceForm, residual_sd: float, replicates: RunNoise | None
) -> tuple[RunNoise, tuple[str, ...]]:
    """Return `judged_noise` of a Huber fit, comparing the replicates with the least-squares surface."""
    if replicates is None:
        n_dof = max(1, len(data.y) - form.n_free)
        return RunNoise(sd=residual_sd, n_dof=n_dof, source="residuals"), ()
    return judged_noise(least_squares_noise(data, theta, form), replicates)


def _chance(n_dof: int, n_dof_below: int, ratio: float) -> float:
    from scipy.special import fdtrc  # slow to import, as all of scipy

    return 0.0 if math.isinf(ratio) else float(fdtrc(n_dof, n_dof_below, ratio))
