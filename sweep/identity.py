"""What makes two runs the same run: canonical JSON and the keys hashed from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sweep.config import ExperimentConfig, RunConfig, to_dict

LABELS = frozenset({"name", "experiment", "arm", "flops_budget", "corpus", "tokenizer", "purpose"})
"""Fields of a RunConfig that only name things; corpora and tokenizers count by their hash."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def run_key(run: RunConfig) -> str:
    """The first 16 hex digits of the SHA-256 over everything that can change the run's result.

    A field that equals its dataclass default is left out, so a new field, whose default is what was done
    before it was there, changes no key. The semantics version is always part of it.
    """
    content = {key: value for key, value in _chosen(run).items() if key not in LABELS}
    return sha256_json({**content, "semantics_version": run.semantics_version})[:16]


def trunk_key(run: RunConfig) -> str | None:
    """Names the trunk of a wsd run: equal for runs that are the same training until the first of them decays.

    Hashed like a run key, without the run's tokens, its decay's length and its evaluation. None for other
    schedules.
    """
    if run.schedule.name != "wsd":
        return None
    apart = LABELS | {"n_tokens", "schedule", "evaluation"}
    content = {key: value for key, value in _chosen(run).items() if key not in apart}
    schedule = {"warmup_steps": run.schedule.warmup_steps, "final_lr_frac": run.schedule.final_lr_frac}
    return sha256_json({**content, **schedule, "semantics_version": run.semantics_version})[:16]


def _chosen(config: Any) -> dict[str, Any]:
    """The fields of a config that differ from their defaults, or have none, as plain JSON types."""
    plain = to_dict(config)
    return {
        field.name: _chosen(value) if dataclasses.is_dataclass(value) else plain[field.name]
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default
    }


def plan_hash(experiment: ExperimentConfig) -> str:
    """Names an experiment's plan file: one per distinct resolved experiment."""
    return sha256_json(to_dict(experiment))[:16]


@cache
def code_version() -> str:
    """The package version and, after a plus, 12 hex digits of the SHA-256 over the package's own sources.

    The same for a wheel, an editable install and a copy, and different after any edit: checkpoints are
    resumed, and points compared, by it.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    try:
        release = version("sweep")
    except PackageNotFoundError:  # imported from a checkout that was never installed
        release = "0"
    return f"{release}+{digest.hexdigest()[:12]}"
