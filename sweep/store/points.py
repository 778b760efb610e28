"""Points: assembled from a training result, and validated when committed and when read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sweep import flops
from sweep.config import RunConfig, to_dict
from sweep.errors import DataError
from sweep.identity import code_version, run_key, trunk_key
from sweep.records import POINT_COLUMNS, CurvePoint, Point, RunResult, SetScore, set_columns
from sweep.store.files import read_json, read_kept

COLUMN_TYPES: dict[str, type] = {
    name: next((kind for kind in (str, float, int) if kind in (hint, *get_args(hint))), str)
    for name, hint in get_type_hints(Point).items()
    if name in POINT_COLUMNS
}
"""Type of the known values of each column: str, int, or float, which includes integers."""

_NEEDED = ("loss", "train_loss", "n_params", "n_tokens", "flops")
_NEEDED_DIVERGED = ("n_params", "n_tokens", "flops")


class ResultError(Exception):
    """An invalid result: a number is missing, not finite or out of range."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """The attempt that produced a result."""

    attempt: int
    started_at: str  # ISO 8601, UTC
    finished_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResult:
    """The content of a valid result.json."""

    point: Point
    curve: tuple[CurvePoint, ...]
    reason: str | None  # reason of a divergence
    ledger: Mapping[str, float] | None  # seconds by activity; None in results of older versions
    step_s: float | None = None  # seconds of an optimizer step; None in results of older versions


def result_payload(run: RunConfig, result: RunResult, execution: Execution) -> dict[str, Any]:
    """Return the content of result.json: the point, the config, the training curve and execution details.

    Raises ResultError if the result is not a valid point; unknown values are never filled in.
    """
    point = assemble(run, result, execution)
    _check(point.values())
    _check_sets(point)
    curve = [asdict(record) for record in result.curve if _is_finite(asdict(record))]
    if result.status == "done" and len(curve) != len(result.curve):
        raise ResultError("the training curve contains a non-finite number")
    return {
        "point": point.values(),
        **({"evaluation_sets": [asdict(score) for score in point.sets]} if point.sets else {}),
        "config": to_dict(run),
        "curve": curve,
        "reason": result.reason,
        "ledger": None if result.ledger is None else dict(result.ledger),
        "choices": None if result.choices is None else dict(result.choices),
        "step_s": result.step_s,
    }


def assemble(run: RunConfig, result: RunResult, execution: Execution) -> Point:
    """Return the row of points.csv.

    `epochs` is n_tokens / n_tokens_unique (Muennighoff et al. 2023, section 2).
    """
    return Point(
        run_key=run_key(run),
        name=run.name,
        arm=run.arm,
        purpose=run.purpose,
        status=result.status,
        flops_budget=run.flops_budget,
        n_tokens_unique=result.n_tokens_unique,
        epochs=run.n_tokens / result.n_tokens_unique if result.n_tokens_unique else None,
        code_version=code_version(),
        started_at=execution.started_at,
        finished_at=execution.finished_at,
        attempts=execution.attempt,
        trunk=trunk_key(run),
        flops_spent=flops.count(run.model, run.n_tokens - result.n_tokens_shared).flops,
        **asdict(flops.count(run.model, run.n_tokens)),
        flops_optimizer=flops.optimizer_flops_per_step(run.model, run.optimizer) * run.n_steps,
        **_parameters(run),
        **_settings(run),
        **_measured(result),
        sets=result.sets,
    )


def _parameters(run: RunConfig) -> dict[str, Any]:
    params = flops.n_params(run.model)
    return {
        "n_params": params.total,
        "n_params_non_embedding": params.non_embedding,
        "n_params_embedding": params.embedding,
        "n_params_head": params.head,
    }


def _settings(run: RunConfig) -> dict[str, Any]:
    model = ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab_size", "seq_len")
    optimizer = ("lr_peak", "weight_decay")
    plain = ("n_tokens", "batch_tokens", "n_steps", "precision", "seed", "parametrization")
    labels = ("corpus", "corpus_sha256", "tokenizer", "tokenizer_sha256")
    return {
        **{name: getattr(run.model, name) for name in model},
        **{name: getattr(run.optimizer, name) for name in optimizer},
        **{name: getattr(run, name) for name in plain + labels},
        "warmup_steps": run.schedule.warmup_steps,
        "schedule": run.schedule.name,
        "optimizer": run.optimizer.name,
        "beta2": None if run.optimizer.name == "sgd" else run.optimizer.beta2,
    }


def _measured(result: RunResult) -> dict[str, Any]:
    names = (
        "loss loss_stderr bits_per_byte train_loss b_simple_tokens evaluation_sha256 wall_time_s "
        "tokens_per_second mfu mfu_causal peak_memory_bytes device torch_version"
    )
    return {name: getattr(result, name) for name in names.split()}


def read_result(path: Path, key: str) -> StoredResult:
    """Read result.json. Raises ResultError, with a message for users, if it is not valid for `key`."""
    try:
        stored = read_kept(path)
    except DataError as error:
        raise ResultError(str(error)) from None
    if stored is None or not isinstance(stored.get("point"), dict):
        raise ResultError(f"{path} is not valid JSON of a result: delete it to train the run again")
    values = {name: stored["point"].get(name) for name in POINT_COLUMNS}
    try:
        (check_imported if "provenance" in stored else _check)(values)
        if values["run_key"] != key:
            raise ResultError(f"it belongs to run {values['run_key']}")
        point = Point(**values, sets=tuple(SetScore(**score) for score in stored.get("evaluation_sets", ())))
        _check_sets(point)
        curve = tuple(CurvePoint(**record) for record in stored.get("curve", ()))
    except (ResultError, TypeError) as error:
        raise ResultError(
            f"{path} is not a valid result ({error}): delete it to train the run again"
        ) from None
    ledger, step_s = stored.get("ledger"), stored.get("step_s")
    return StoredResult(
        point=point,
        curve=curve,
        reason=stored.get("reason"),
        ledger=ledger if isinstance(ledger, dict) else None,
        step_s=step_s if isinstance(step_s, float) else None,
    )


def not_fitted(run_dir: Path, stored: StoredResult) -> str | None:
    """Return the reason why a run with a result is not fitted; None if it is fitted.

    Runs are not fitted if a user excluded them, they diverged, or they serve another purpose.
    """
    path = run_dir / "excluded.json"
    if path.exists():
        return str((read_json(path) or {}).get("reason", "excluded by hand"))
    if stored.point.status == "diverged":
        return f"diverged: {stored.reason or 'no reason recorded'}"
    if stored.point.purpose is not None:
        return f"purpose: {stored.point.purpose}"
    return None


def check_imported(values: Mapping[str, Any]) -> None:
    """Raise ResultError for an imported point as `_check` does; its training loss may be unknown."""
    _check(values, needed=tuple(name for name in _NEEDED if name != "train_loss"))


def _check(values: Mapping[str, Any], needed: tuple[str, ...] = _NEEDED) -> None:
    """Raise ResultError unless values have their column's type, are finite, and the needed ones positive."""
    status = values["status"]
    if status not in ("done", "diverged"):
        raise ResultError(f"status={status!r} is invalid, expected done or diverged")
    for name, value in values.items():
        _check_value(name, value)
    for name in needed if status == "done" else _NEEDED_DIVERGED:
        if values[name] is None or values[name] <= 0:
            raise ResultError(
                f"{name}={values[name]!r} is invalid, expected a positive number for a {status} run"
            )
    if status == "diverged" and values["loss"] is not None:
        raise ResultError(f"loss={values['loss']!r} is invalid for a diverged run")


def _check_value(name: str, value: Any) -> None:
    wanted = COLUMN_TYPES.get(name, float)  # the columns of evaluation sets hold numbers
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float) if wanted is float else wanted):
        raise ResultError(f"{name}={value!r} is not of type {wanted.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"{name}={value!r} is not finite")


def _check_sets(point: Point) -> None:
    """Raise ResultError for a score that is not a finite positive number, and for one of a diverged run."""
    for score in point.sets:
        measured = {f"loss_{score.name}": score.loss, f"bits_per_byte_{score.name}": score.bits_per_byte}
        for column, value in measured.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value <= 0:
                raise ResultError(f"{column}={value!r} is invalid, expected a positive number")
        if point.status == "diverged":
            raise ResultError(f"loss_{score.name}={score.loss!r} is invalid for a diverged run")


def _is_finite(values: dict[str, Any]) -> bool:
    return all(math.isfinite(value) for value in values.values())


def column_values(points: tuple[Point, ...]) -> dict[str, list[Any]]:
    """Return the points as columns, in the order of POINT_COLUMNS and then of `set_columns`."""
    rows = [point.values() for point in points]
    return {name: [row.get(name) for row in rows] for name in (*POINT_COLUMNS, *set_columns(points))}
