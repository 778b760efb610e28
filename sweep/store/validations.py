"""Validations of a sweep: predictions registered before their runs are trained, and their scores.

`validations/NAME.json` holds a registered prediction and the SHA-256 of its canonical JSON; it is created
once, by a hard link, and never replaced. `validations.json` lists the scores of finished validations.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sweep.errors import SafetyError
from sweep.identity import sha256_json
from sweep.store.files import create_once, read_json, read_kept, write_atomic

DIRECTORY = "validations"  # of the registered predictions, in the directory of the sweep
SCORES = "validations.json"  # in the directory of the sweep
SCHEMA_VERSION = 1

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationRun:
    """A run that tests a prediction."""

    run_key: str
    name: str
    d_model: int
    n_layers: int
    n_params: int
    n_tokens: int
    flops: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """A prediction as it was registered, and the runs that test it."""

    registered_at: str  # ISO 8601, UTC
    flops: float  # the budget
    arm: str | None
    reach: float  # flops over the largest budget fitted
    confidence: float  # of all intervals
    n_params_opt: float
    n_params_opt_interval: Interval
    n_tokens_opt: float
    n_tokens_opt_interval: Interval
    loss_opt: float  # nats per token
    loss_opt_interval: Interval
    loss_interval: Interval  # for the loss of one new run: the prediction interval
    run_noise_sd: float | None  # standard deviation of ln L between runs of one size; None if unknown
    n_points: int  # fitted
    points_sha256: str  # of the canonical JSON of the fitted [run key, loss], sorted
    code_version: str
    runs: tuple[ValidationRun, ...]  # sizes ascending

    @property
    def name(self) -> str:
        """Name of its file, without the suffix."""
        return validation_name(self.flops, self.arm)

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return sha256_json(self.to_json())

    @property
    def d_models(self) -> tuple[int, ...]:
        """Widths of the runs, ascending."""
        return tuple(sorted({run.d_model for run in self.runs}))

    def to_json(self) -> dict[str, Any]:
        """Return the registered document, as plain JSON types."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"schema_version": SCHEMA_VERSION, **document}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Registration:
        """Return the inverse of `to_json`. Raises KeyError or TypeError for an incomplete document."""
        values = {field.name: document[field.name] for field in fields(cls)}
        pairs = {name: tuple(value) for name, value in values.items() if name.endswith("_interval")}
        return cls(**(values | pairs | {"runs": tuple(ValidationRun(**run) for run in values["runs"])}))


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeLoss:
    """The measured loss of one size, over its seeds."""

    n_params: int
    n_tokens: int
    n_runs: int
    loss: float  # mean, nats per token


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """A finished validation: the registered prediction, and what was measured."""

    registration: Registration
    sha256: str  # of the registered prediction
    scored_at: str  # ISO 8601, UTC
    sizes: tuple[SizeLoss, ...]  # ascending
    loss: float  # at the best size: mean over its seeds
    n_params: int  # of the best size
    n_tokens: int
    loss_error: float  # predicted / measured - 1
    loss_inside: bool  # in the prediction interval
    n_params_opt: float | None  # minimum of a parabola in ln N; None if the sizes do not bracket it
    n_params_opt_interval: Interval | None  # from run noise; None if that is unknown
    n_params_opt_error: float | None  # predicted / measured - 1
    n_params_opt_inside: bool | None  # the measured interval overlaps the predicted one

    def to_json(self) -> dict[str, Any]:
        """Return its entry in validations.json: the registered prediction under `prediction`."""
        document = asdict(self) | {"prediction": self.registration.to_json()}
        del document["registration"]
        plain: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
        return plain

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Validation:
        """Return the inverse of `to_json`. Raises KeyError or TypeError for an incomplete document."""
        values = {field.name: document[field.name] for field in fields(cls) if field.name != "registration"}
        interval = values["n_params_opt_interval"]
        values["n_params_opt_interval"] = None if interval is None else tuple(interval)
        values["sizes"] = tuple(SizeLoss(**size) for size in values["sizes"])
        return cls(registration=Registration.from_json(document["prediction"]), **values)


def validation_name(flops: float, arm: str | None) -> str:
    """Return the file name of a validation, without the suffix.

    >>> validation_name(1.6e12, None)
    '1.6e12'
    """
    budget = f"{flops:.10g}" if flops < 1e4 else f"{flops:.9e}"
    mantissa, _, exponent = budget.partition("e")
    budget = mantissa.rstrip("0").rstrip(".") + (f"e{int(exponent)}" if exponent else "")
    return budget if arm is None else f"{budget}-{sha256_json(arm)[:8]}"


def register(sweep_dir: Path, registration: Registration) -> Registration:
    """Register a prediction unless one with its budget and arm exists; return the registered one.

    Raises SafetyError as `read_registration`.
    """
    path = _path(sweep_dir, registration.name)
    path.parent.mkdir(exist_ok=True)
    document = {"prediction": registration.to_json(), "sha256": registration.sha256}
    create_once(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    found = read_registration(sweep_dir, registration.flops, registration.arm)
    assert found is not None
    return found


def read_registration(sweep_dir: Path, flops: float, arm: str | None) -> Registration | None:
    """Return the registered prediction at a budget; None without one.

    Raises SafetyError if its file was changed since.
    """
    path = _path(sweep_dir, validation_name(flops, arm))
    return _read(path) if path.exists() else None


def read_registrations(sweep_dir: Path) -> tuple[Registration, ...]:
    """Return all registered predictions by time. Raises SafetyError if a file was changed since."""
    found = (_read(path) for path in sorted((sweep_dir / DIRECTORY).glob("*.json")))
    return tuple(sorted(found, key=lambda registration: registration.registered_at))


def read_validations(sweep_dir: Path) -> tuple[Validation, ...]:
    """Return the finished validations in the order of their scores, without entries that cannot be read."""
    entries = (read_json(sweep_dir / SCORES) or {}).get("validations", [])
    found = []
    for entry in entries:
        try:
            found.append(Validation.from_json(entry))
        except (KeyError, TypeError):
            continue
    return tuple(found)


def append_validations(sweep_dir: Path, scored: Iterable[Validation]) -> tuple[Validation, ...]:
    """Add scores to validations.json and return all; a validation that is listed keeps its first score."""
    known = read_validations(sweep_dir)
    names = {validation.registration.name for validation in known}
    new = [validation for validation in scored if validation.registration.name not in names]
    if new:
        _write_scores(sweep_dir, (*known, *new))
    return (*known, *new)


def _write_scores(sweep_dir: Path, validations: Sequence[Validation]) -> None:
    entries = [validation.to_json() for validation in validations]
    content = {"schema_version": SCHEMA_VERSION, "validations": entries}
    write_atomic(sweep_dir / SCORES, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _path(sweep_dir: Path, name: str) -> Path:
    return sweep_dir / DIRECTORY / f"{name}.json"


def _read(path: Path) -> Registration:
    document = read_kept(path) or {}
    prediction = document.get("prediction")
    if not isinstance(prediction, dict) or sha256_json(prediction) != document.get("sha256"):
        raise SafetyError(
            f"{path} does not match its sha256, so the registered prediction was changed: restore the file, "
            f"or validate another budget"
        )
    try:
        return Registration.from_json(prediction)
    except (KeyError, TypeError) as error:
        raise SafetyError(
            f"{path} is not a prediction that this version can read ({type(error).__name__}: {error}): "
            f"validate another budget"
        ) from None
