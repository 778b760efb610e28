"""Checks that the losses of two arms mean the same, and the measure in which they are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from sweep.fit.compare.arms import Arm
from sweep.fit.refusals import RefusedError
from sweep.records import Point

Measure = Literal["loss", "bits_per_byte"]
UNITS: dict[Measure, str] = {"loss": "nats per token", "bits_per_byte": "bits per byte"}


def common_measure(a: Arm, b: Arm) -> Measure:
    """Return the measure in which both arms can be compared.

    It is the held-out loss, or bits per byte where the arms have different tokenizers.

    Raises:
        RefusedError: no fitted points, other evaluation windows, or other tokenizers without bits per byte.
    """
    one, other = _fitted(a), _fitted(b)
    for arm, points in ((a, one), (b, other)):
        if not points:
            raise RefusedError("no_points", f"arm {arm.name} has no finished run that is not excluded")
    if _differ("tokenizer_sha256", one, other) or _differ("tokenizer", one, other):
        return _bits_per_byte(a, b, one, other)
    if _differ("evaluation_sha256", one, other):
        raise RefusedError(
            "mixed_data",
            f"the losses of {a.name} and {b.name} are measured on different evaluation windows: train both "
            f"with the same held-out text, seq_len and evaluation settings",
        )
    known = _known("evaluation_sha256", one) and _known("evaluation_sha256", other)
    if not known and (_differ("corpus_sha256", one, other) or _differ("corpus", one, other)):
        raise RefusedError(
            "mixed_data",
            f"{a.name} and {b.name} come from different corpora, and nothing shows that their losses are "
            f"measured on the same held-out text: give both tables a column evaluation_sha256",
        )
    return "loss"


def _bits_per_byte(a: Arm, b: Arm, one: list[Point], other: list[Point]) -> Measure:
    if _differ("corpus_sha256", one, other) or _differ("corpus", one, other):
        raise RefusedError(
            "mixed_data",
            f"{a.name} and {b.name} have different tokenizers and corpora, so their held-out texts differ: "
            f"compare arms of one corpus",
        )
    if any(point.bits_per_byte is None for point in (*one, *other)):
        raise RefusedError(
            "mixed_data",
            f"{a.name} and {b.name} have different tokenizers, so their losses per token are not comparable: "
            f"give every run bits_per_byte",
        )
    return "bits_per_byte"


def in_measure(arm: Arm, measure: Measure) -> Arm:
    """Return the arm with the measure as its loss."""
    if measure == "loss":
        return arm
    points = [dataclasses.replace(point, loss=point.bits_per_byte) for point in arm.points]
    return dataclasses.replace(arm, points=points)


def _fitted(arm: Arm) -> list[Point]:
    return [
        point
        for point in arm.points
        if point.status == "done" and point.run_key not in arm.excluded and point.name not in arm.excluded
    ]


def _values(field: str, points: Iterable[Point]) -> set[object]:
    return {getattr(point, field) for point in points}


def _known(field: str, points: Iterable[Point]) -> bool:
    return None not in _values(field, points)


def _differ(field: str, one: list[Point], other: list[Point]) -> bool:
    """Return true if the known values of a field differ between the arms."""
    return bool((_values(field, one) ^ _values(field, other)) - {None}) and (
        _known(field, one) and _known(field, other)
    )
