"""Runs with a training curve that leaves the band of their peers: mis-tuned, diverging or faulty.

Training curves of one recipe collapse onto one curve when compute and reducible loss are normalised to 1 at
the end of training (Qiu et al. 2025, arXiv:2507.02119, "Scaling collapse reveals universal dynamics in
compute-optimally trained neural networks"); with a decaying learning rate the spread between sizes is below
the noise between seeds, and the collapse breaks where hyperparameters are scaled badly. A sweep also holds
runs away from the optimum, and a run that may be bad gives no reliable end to normalise by. So the logarithm
of the reducible loss at a fraction of the schedule is compared with a quadratic in ln N and ln D through the
peers at the same fraction, which is a normalisation by the end that the peers predict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from sweep.records import CurvePoint, Point

FloatArray = npt.NDArray[np.float64]
Kind = Literal["mis-tuned", "diverging", "faulty"]

LEVEL = 0.01  # chance of one false alarm or more in a sweep, if residuals are normal
LIVE_LEVEL = 1e-4  # the same for one run that is compared while it trains
EDGES = np.linspace(0.1, 1.0, 19)
"""Fractions of the schedule between which losses are averaged; the warmup before them differs most."""

WINDOW = 4  # intervals of a moving mean
MIN_DF = 5  # residual degrees of freedom, at least
BASE_FRAC = 0.75  # of the runs, the most central ones, from which the search starts
MAX_REPEATED, N_NEIGHBOURS = 4, 3  # runs outside, and their neighbours, for which the search is repeated
MAX_LEVERAGE = 2.0  # of a run that is judged: beyond it the prediction is an extrapolation
JUMP = 0.5  # of the excess, within two intervals: a fault, not a setting
JUMP_OVER_USUAL = 3.0  # factor over the run's median change within two intervals


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trajectory:
    """The training curve of one run."""

    run: str  # its key
    n_params: float
    n_tokens: float  # of the whole run
    n_steps: int
    steps: FloatArray  # (m,) steps done at each record, ascending
    loss: FloatArray  # (m,) nats per token, the mean since the record before
    start: float = 0  # steps before the first record's interval; the loss of earlier ones is unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Departure:
    """A run outside the band of its peers."""

    run: str
    kind: Kind
    step: int  # at the end of the first interval outside the band
    n_steps: int
    excess: float  # of its reducible loss over that of its peers where it is farthest, as a fraction
    score: float  # its distance there over the width of the band, above 1

    def __str__(self) -> str:
        side = "above" if self.excess > 0 else "below"
        return (
            f"looks {self.kind}: left the band of its peers at step {self.step} of {self.n_steps}, "
            f"reducible loss {abs(self.excess):.1%} {side} theirs"
        )


def trajectories(
    points: Sequence[Point], curves: Mapping[str, Sequence[CurvePoint]]
) -> list[list[Trajectory]]:
    """Return the curves of completed runs in groups of peers: one arm, recipe, corpus and schedule."""
    groups: dict[tuple[object, ...], list[Trajectory]] = {}
    for point in points:
        curve = trajectory(point, curves.get(point.run_key or "", ()))
        if point.status == "done" and point.purpose is None and curve is not None:
            groups.setdefault(peer_group(point), []).append(curve)
    return list(groups.values())


def peer_group(point: Point) -> tuple[object, ...]:
    """Return what runs must share to be peers."""
    return (
        point.arm,
        point.schedule,
        point.optimizer,
        point.parametrization,
        point.corpus_sha256,
        point.tokenizer_sha256,
        point.seq_len,
    )


def trajectory(point: Point, curve: Sequence[CurvePoint]) -> Trajectory | None:
    """Return the curve of a run with finite, positive losses; None without one."""
    records = [each for each in curve if math.isfinite(each.train_loss) and each.train_loss > 0]
    if not records or point.n_params is None or point.n_tokens is None or point.n_steps is None:
        return None
    return Trajectory(
        run=str(point.run_key),
        n_params=point.n_params,
        n_tokens=point.n_tokens,
        n_steps=point.n_steps,
        steps=np.array([each.step for each in records], dtype=np.float64),
        loss=np.array([each.train_loss for each in records], dtype=np.float64),
    )


def departures(peers: Sequence[Trajectory], irreducible: float | None = None) -> tuple[Departure, ...]:
    """Return the runs outside the band of the others, the farthest first; none with too few peers.

    The band is built up from the most central runs, so that bad ones neither widen nor bend it (a forward
    search, Hadi 1992): the nearest run joins until even it is outside. A run is outside where the mean of its
    last WINDOW intervals, or of all so far, is farther from the prediction of the band's runs than Student's
    t allows at LEVEL, divided by the numbers of runs and of means (Bonferroni). `irreducible` is the loss L0
    of a fitted law in nats per token; None: the value for which the curves collapse best.
    """
    band = peer_band(peers, irreducible)
    return () if band is None else tuple(sorted(band.outside, key=lambda found: -found.score))


def peer_band(peers: Sequence[Trajectory], irreducible: float | None = None) -> Band | None:
    """Return the band of the complete curves among `peers`, with the runs outside it; None if too few."""
    losses = np.array([_averaged(curve) for curve in peers]).reshape(len(peers), len(EDGES) - 1)
    complete = np.isfinite(losses).all(axis=1)
    curves = [curve for curve, whole in zip(peers, complete, strict=True) if whole]
    return Band(curves, losses[complete], irreducible) if len(curves) >= MIN_DF + 2 else None


def live_departure(running: Trajectory, band: Band) -> Departure | None:
    """Return how a run in progress leaves the band of completed peers upwards; None within it.

    None also where the peers are too few, or the run is far from their sizes and durations.
    """
    found = band.judge(running, LIVE_LEVEL / len(band.means))
    return found if found is not None and found.excess > 0 else None


class Band:
    """Regression of averaged log losses on size and duration, through the runs that `inside` selects."""

    def __init__(self, curves: Sequence[Trajectory], losses: FloatArray, irreducible: float | None) -> None:
        self.curves = curves
        sizes = np.log([[curve.n_params, curve.n_tokens] for curve in curves])
        self.centre, self.spread = sizes.mean(0), np.maximum(sizes.std(0), 1e-9)
        self.design = self._features(sizes)
        self.inside = np.ones(len(curves), dtype=bool)
        self.means = _means(len(EDGES) - 1)
        self.irreducible = self._best_irreducible(losses) if irreducible is None else irreducible
        self.irreducible = min(self.irreducible, 0.95 * float(losses.min()))
        self.logs = np.log(losses - self.irreducible)
        self.values = self.logs @ self.means.T
        self.typical = self.logs.mean(axis=0)
        self.usual_roughness = max(float(np.median(self._roughness(self.logs))), 1e-9)
        self.outside = self._search(LEVEL / (len(curves) * len(self.means)))

    def _search(self, level: float) -> tuple[Departure, ...]:
        """Set `inside` by a forward search at a two-sided `level` for one mean; return the runs outside.

        Where runs are outside, the search is repeated with each of their neighbours last in turn, and the
        band that leaves fewest outside is taken: at a corner of the grid a bad run can take the place of a
        good one.
        """
        order = np.argsort(self._centrality())
        best = self._grown(order, level)
        for outside in np.flatnonzero(~best)[:MAX_REPEATED]:
            distance = np.abs(self.design[:, 1:3] - self.design[outside, 1:3]).sum(axis=1)
            for neighbour in np.argsort(np.where(best, distance, np.inf), kind="stable")[:N_NEIGHBOURS]:
                grown = self._grown(order, level, last=int(neighbour))
                best = grown if best.sum() < grown.sum() < len(order) else best
        self.inside = best
        if self._df() < MIN_DF:
            return ()
        judged = np.flatnonzero(~best & (self._leverage(self.design) <= MAX_LEVERAGE)).tolist()
        found = (self._departure(self.curves[i], self.design[i], self.logs[i], level) for i in judged)
        return tuple(one for one in found if one is not None)

    def _grown(
        self, order: npt.NDArray[np.int64], level: float, last: int | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return the band that grows from the first runs in `order`; `last` joins after all that can."""
        order = order[order != last] if last is not None else order
        inside = self.inside = np.zeros(len(self.curves), dtype=bool)
        inside[order[: max(math.ceil(BASE_FRAC * len(order)), self._n_needed(order))]] = True
        while not inside.all():
            ratios = self._ratios(level)
            ratios[inside] = np.inf
            others = np.where(np.arange(len(ratios)) == last, np.inf, ratios)
            nearest = int(others.argmin() if others.min() <= 1 else ratios.argmin())
            if ratios[nearest] > 1:
                break
            inside[nearest] = True
        return inside

    def judge(self, curve: Trajectory, level: float) -> Departure | None:
        """Return how a further run leaves the band at `level`; None within it or where it does not reach."""
        row = self._features(np.log([[curve.n_params, curve.n_tokens]]))[0]
        if self._df() < MIN_DF or self._leverage(row[None])[0] > 1:
            return None
        reducible = np.maximum(_averaged(curve) - self.irreducible, 1e-6)  # nan stays nan
        return self._departure(curve, row, np.log(reducible), level)

    def _features(self, sizes: FloatArray) -> FloatArray:
        """Return 1, n, d, n², nd, d² for rows (ln N, ln D)."""
        n, d = ((sizes - self.centre) / self.spread).T
        return np.stack([np.ones_like(n), n, d, n * n, n * d, d * d], axis=1)

    def _best_irreducible(self, losses: FloatArray) -> float:
        """Return the L0 with the largest part of the variance explained by size and duration."""
        hat = self.design @ np.linalg.pinv(self.design)
        best, found = np.inf, 0.0
        for fraction in np.linspace(0.0, 0.9, 10):
            logs = np.log(losses - fraction * losses.min())
            total = max(float(((logs - logs.mean(0)) ** 2).sum()), 1e-12)
            unexplained = float(((logs - hat @ logs) ** 2).sum()) / total
            if unexplained < best:
                best, found = unexplained, fraction * float(losses.min())
        return found

    def _centrality(self) -> FloatArray:
        """Return the distance of each run from a least-absolute-deviation regression, in robust units."""
        weights = np.ones(len(self.curves))
        distance = weights
        for _ in range(20):
            root = np.sqrt(weights)[:, None]
            fitted = self.design @ (np.linalg.pinv(root * self.design) @ (root * self.values))
            residuals = np.abs(self.values - fitted)
            scale = np.maximum(np.median(residuals, axis=0), 1e-12)
            distance = np.median(residuals / scale, axis=1)
            weights = 1 / np.maximum(distance, 0.1)
        return distance

    def _n_needed(self, order: npt.NDArray[np.int64]) -> int:
        """Return how many of the runs in `order` the regression needs for MIN_DF and its full rank."""
        rank = np.linalg.matrix_rank(self.design)
        for n in range(int(rank) + MIN_DF, len(order) + 1):
            if np.linalg.matrix_rank(self.design[order[:n]]) == rank:
                return n
        return len(order)

    def _df(self) -> int:
        base = self.design[self.inside]
        return len(base) - int(np.linalg.matrix_rank(base))

    def _leverage(self, rows: FloatArray) -> FloatArray:
        inverse = np.linalg.pinv(self.design[self.inside])
        return np.asarray(((rows @ inverse) ** 2).sum(axis=1))

    def _roughness(self, logs: FloatArray) -> FloatArray:
        """Return the median distance of each row's values from the means of their neighbours.

        It is 0 for a row that is too short. The mean curve is subtracted first.
        """
        relative = logs - self.typical
        bends = np.abs(relative[:, 1:-1] - (relative[:, 2:] + relative[:, :-2]) / 2)
        return np.array([np.median(row[row >= 0]) if (row >= 0).any() else 0.0 for row in bends])

    def _distances(self, rows: FloatArray, logs: FloatArray, values: FloatArray) -> FloatArray:
        """Return t of rows that are not in the band, by mean: the error of a prediction over its sd.

        The sd is that of the band as the central part of all runs, and larger for a run that is rougher than
        most.
        """
        base, of_base = self.design[self.inside], self.values[self.inside]
        solution = np.linalg.pinv(base) @ of_base
        sd = np.sqrt(((of_base - base @ solution) ** 2).sum(axis=0) / max(self._df(), 1))
        sd /= trimmed_sd(float(self.inside.mean()))
        noise = np.maximum(self._roughness(logs) / self.usual_roughness, 1.0)
        spread = np.sqrt(noise**2 + self._leverage(rows))[:, None] * np.maximum(sd, 1e-9)
        return np.asarray((values - rows @ solution) / spread)

    def _ratios(self, level: float) -> FloatArray:
        """Return the largest |t| of each run over its bound."""
        bound = student_bound(level, max(self._df(), 1))
        return np.asarray(np.abs(self._distances(self.design, self.logs, self.values)).max(axis=1) / bound)

    def _departure(
        self, curve: Trajectory, row: FloatArray, logs: FloatArray, level: float
    ) -> Departure | None:
        """Return how a run leaves the band; None if it does not. `logs` may end with nan."""
        values = np.array([logs[mean > 0] @ mean[mean > 0] for mean in self.means])
        ratios = self._distances(row[None], logs[None], values[None])[0] / student_bound(level, self._df())
        beyond = np.flatnonzero(np.nan_to_num(np.abs(ratios)) > 1)
        if not beyond.size:
            return None
        worst = int(np.nanargmax(np.abs(ratios)))
        first = int((beyond % (len(EDGES) - 1)).min())  # both kinds of means are in the order of their ends
        solution = np.linalg.pinv(self.design[self.inside]) @ self.logs[self.inside]
        residuals = logs - row @ solution
        return Departure(
            run=curve.run,
            kind=_kind(residuals, logs, float(ratios[worst])),
            step=math.ceil(EDGES[first + 1] * curve.n_steps),
            n_steps=curve.n_steps,
            excess=math.expm1(float(values[worst] - row @ (solution @ self.means[worst]))),
            score=float(abs(ratios[worst])),
        )


def student_bound(level: float, df: int) -> float:
    """Return the two-sided bound of Student's t with `df` degrees of freedom.

    Source: Wallace 1959, the inverse of z = (8 df + 1)/(8 df + 3) sqrt(df ln(1 + t²/df)).

    >>> round(student_bound(0.01, 10), 2), round(student_bound(1e-6, 30), 2)
    (3.17, 6.12)
    """
    z = NormalDist().inv_cdf(1 - level / 2) * (8 * df + 3) / (8 * df + 1)
    return math.sqrt(df * math.expm1(z * z / df))


def trimmed_sd(share: float) -> float:
    """Return the standard deviation of the central `share` of a standard normal distribution.

    A band without the runs that are farthest from it is too narrow by this factor: the variance of a normal
    distribution truncated at ±c is 1 - 2 c phi(c) / share.

    >>> round(trimmed_sd(1.0), 2), round(trimmed_sd(0.75), 2)
    (1.0, 0.61)
    """
    if share >= 1:
        return 1.0
    end = NormalDist().inv_cdf((1 + share) / 2)
    return math.sqrt(1 - 2 * end * NormalDist().pdf(end) / share)


def _averaged(curve: Trajectory) -> FloatArray:
    """Return the mean loss between EDGES, shape (len(EDGES) - 1,); nan where the curve has no records."""
    fractions = np.concatenate([[curve.start], curve.steps]) / curve.n_steps
    sums = np.concatenate([[0.0], np.cumsum(np.diff(fractions) * curve.loss)])
    means = np.diff(np.interp(EDGES, fractions, sums)) / np.diff(EDGES)
    known = (EDGES[:-1] >= fractions[0] - 1e-9) & (EDGES[1:] <= fractions[-1] + 1e-9)
    return np.where(known, means, np.nan)


def _means(n: int) -> FloatArray:
    """Return the weights of moving means over WINDOW intervals, and of means over all so far, (2n, n)."""
    index = np.arange(n)
    so_far = (index[None] <= index[:, None]).astype(np.float64)
    moving = so_far * (index[None] > index[:, None] - WINDOW)
    both = np.concatenate([moving, so_far])
    return np.asarray(both / both.sum(axis=1, keepdims=True))


def _kind(residuals: FloatArray, logs: FloatArray, distance: float) -> Kind:
    """Return the cause that a departure looks like.

    Diverging: the loss ends higher than it was before, by more than half of the run's largest excess. Faulty:
    below the band, or more than half of the excess comes within two intervals, and far more than otherwise.
    Mis-tuned: anything else, as a learning rate that is too high, which shows until the rate has decayed.
    """
    known = np.isfinite(residuals)
    reached, seen = logs[known], residuals[known]
    changes, excess = seen[2:] - seen[:-2], float(np.abs(seen).max())
    if distance < 0:
        return "faulty"
    pairs = (reached[1:] + reached[:-1]) / 2
    if pairs.size and pairs[-1] - pairs.min() > JUMP * excess:
        return "diverging"
    if changes.size and changes.max() > max(JUMP * excess, JUMP_OVER_USUAL * np.median(np.abs(changes))):
        return "faulty"
    return "mis-tuned"
