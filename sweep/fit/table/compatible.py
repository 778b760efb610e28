"""Refusals of points that cannot be fitted together: mixed data or schedules, and repeated runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sweep.fit.refusals import Refusal
from sweep.records import BOOKKEEPING_COLUMNS, POINT_COLUMNS, Point

IDENTITIES = {
    "corpus_sha256": "corpora",
    "tokenizer_sha256": "tokenizers",
    "evaluation_sha256": "evaluation windows",
}
NAMES = {"corpus": "corpora", "tokenizer": "tokenizers"}  # compared when no point has a hash
RUN_COLUMNS = tuple(name for name in POINT_COLUMNS if name not in BOOKKEEPING_COLUMNS)
MAX_NAMED = 3  # groups of equal rows that a refusal names
ROUNDED_DIGITS = 6  # two runs may agree in a loss of no more significant digits
NO_POINTS = Refusal(
    kind="no_points",
    reason="no points to fit: every run diverged, is excluded or was filtered out",
)


def common_refusal(
    points: Sequence[Point], labels: Sequence[str], *, allow_mixed_schedules: bool = False
) -> Refusal | None:
    """Return the reason why no method may fit these points together, or None.

    `labels` name the points: run keys, names or rows.
    """
    if not points:
        return NO_POINTS
    return (
        _mixed_data(points)
        or _mixed_arms(points)
        or (None if allow_mixed_schedules else _mixed_schedules(points))
        or _duplicated_run_keys(points)
        or _duplicated_rows(points, labels)
    )


def _mixed_data(points: Sequence[Point]) -> Refusal | None:
    hashed = any(point.corpus_sha256 or point.tokenizer_sha256 for point in points)
    for field, plural in {**IDENTITIES, **({} if hashed else NAMES)}.items():
        values = {getattr(point, field) for point in points}
        if len(values) > 1:
            shown = ", ".join(sorted("none" if value is None else value[:12] for value in values))
            return Refusal(
                kind="mixed_data",
                reason=f"the points come from {len(values)} {plural} ({field} {shown}) and their losses are "
                f"not comparable: fit each alone, or exclude all but one",
            )
    return None


def _mixed_arms(points: Sequence[Point]) -> Refusal | None:
    """Refuse several arms, as each has a law of its own, and runs without an arm among those of one."""
    counts = Counter(point.arm for point in points)
    if len(counts) < 2:
        return None
    named = sorted((str(arm), count) for arm, count in counts.items() if arm is not None)
    shown = [f"no arm {counts[None]}"] if None in counts else []
    shown += [f"{arm} {count}" for arm, count in named[:MAX_NAMED]]
    shown += ["…"] if len(named) > MAX_NAMED else []
    return Refusal(
        kind="mixed_arms",
        reason=f"the points come from {len(counts)} arms (column arm: {', '.join(shown)} points), and each "
        f"has a law of its own: fit one alone with --where 'arm == \"{named[0][0]}\"', or the best run of "
        f"each cell with sweep fit --best-of-cell",
    )


def _mixed_schedules(points: Sequence[Point]) -> Refusal | None:
    """At equal N and D a schedule that decays ends at a lower loss than one that does not."""
    counts = Counter(point.schedule for point in points if point.schedule is not None)
    if len(counts) < 2:
        return None
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return Refusal(
        kind="mixed_schedules",
        reason=f"the points come from {len(counts)} learning-rate schedules ({shown} points) and their "
        f"losses differ at equal N and D: fit each alone, or set fit.allow_mixed_schedules=true",
    )


def _duplicated_run_keys(points: Sequence[Point]) -> Refusal | None:
    counts = Counter(point.run_key for point in points if point.run_key is not None)
    twice = sorted(key for key, count in counts.items() if count > 1)
    if not twice:
        return None
    return Refusal(
        kind="duplicated_run_keys",
        reason=f"{len(twice)} run keys occur more than once ({', '.join(twice[:3])}): remove the repeated "
        f"rows",
    )


def _duplicated_rows(points: Sequence[Point], labels: Sequence[str]) -> Refusal | None:
    """Refuse rows without a key that agree in every column: a run counted twice narrows the intervals.

    Rows that differ in their seed are replicates, unless their losses agree to all digits.
    """
    rows: dict[tuple[object, ...], list[str]] = {}
    for point, label in zip(points, labels, strict=True):
        if point.run_key is None:
            values = (None if _is_redundant_seed(n, point) else getattr(point, n) for n in RUN_COLUMNS)
            rows.setdefault(tuple(values), []).append(label)
    repeated = [same for same in rows.values() if len(same) > 1]
    n_repeated = sum(len(same) - 1 for same in repeated)
    if not n_repeated:
        return None
    named = "; ".join(" and ".join(same) for same in repeated[:MAX_NAMED])
    more = f"; and {len(repeated) - MAX_NAMED} more" if len(repeated) > MAX_NAMED else ""
    many = "rows repeat others" if n_repeated > 1 else "row repeats another"
    return Refusal(
        kind="duplicated_rows",
        reason=f"{n_repeated} {many} in every column ({named}{more}): remove them, or distinguish "
        f"replicates by a column seed or run_key (the losses of two seeds never agree to all digits)",
    )


def _is_redundant_seed(name: str, point: Point) -> bool:
    """Return true for the seed of a point with an unrounded loss: two seeds never end at the same loss."""
    if name != "seed" or point.loss is None:
        return False
    rounded = float(f"{point.loss:.{ROUNDED_DIGITS}g}")
    with np.errstate(over="ignore"):
        return point.loss not in (rounded, float(np.float32(rounded)))
