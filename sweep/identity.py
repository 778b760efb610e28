"""Run keys, trunk keys and plan hashes: SHA-256 of canonical JSON."""

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
"""Fields of a RunConfig that are only names. Corpora and tokenizers enter the key by their hash."""

ALWAYS_HASHED = frozenset(
    "seq_len norm norm_eps positions rope_base activation bias tied qk_norm qk_gain embedding_scale "
    "n_tokens".split()
)
"""Fields that got a default after keys with them were stored: part of the key also at that default."""


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no NaN, so that equal values give equal text.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def run_key(run: RunConfig) -> str:
    """Return the first 16 hex digits of the SHA-256 over everything that can change the run's result.

    A field equal to its dataclass default is left out, except for `ALWAYS_HASHED`. A new field with the
    previous behaviour as its default therefore changes no key. The semantics version is always included.
    """
    content = {key: value for key, value in _chosen(run).items() if key not in LABELS}
    return sha256_json({**content, "semantics_version": run.semantics_version})[:16]


def trunk_key(run: RunConfig) -> str | None:
    """Return the key of a wsd run's trunk, equal for runs that train identically until the first one decays.

    Hashed like a run key, without the number of tokens, the length of the decay and the evaluation. None for
    other schedules.
    """
    if run.schedule.name != "wsd":
        return None
    apart = LABELS | {"n_tokens", "schedule", "evaluation"}
    content = {key: value for key, value in _chosen(run).items() if key not in apart}
    schedule = {"warmup_steps": run.schedule.warmup_steps, "final_lr_frac": run.schedule.final_lr_frac}
    return sha256_json({**content, **schedule, "semantics_version": run.semantics_version})[:16]


def _chosen(config: Any) -> dict[str, Any]:
    """Return the fields that enter the key, as plain JSON types."""
    plain = to_dict(config)
    return {
        field.name: _chosen(value) if dataclasses.is_dataclass(value) else plain[field.name]
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default or field.name in ALWAYS_HASHED
    }


def plan_hash(experiment: ExperimentConfig) -> str:
    """Return the hash that names the plan file of a resolved experiment."""
    return sha256_json(to_dict(experiment))[:16]


@cache
def code_version() -> str:
    """Return the package version, a plus, and 12 hex digits of the SHA-256 over the package's sources.

    It is the same for a wheel, an editable install and a copy, and differs after any edit. Checkpoints are
    resumed only under the same code version.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    try:
        release = version("sweep")
    except PackageNotFoundError:  # imported from a checkout that is not installed
        release = "0"
    return f"{release}+{digest.hexdigest()[:12]}"
