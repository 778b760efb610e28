"""Upgrade of stored experiments: the keys of earlier versions and their places in this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANGED_KEYS: Mapping[str, str | None] = {
    "points": None,  # arguments of sweep fit and sweep predict
    "columns": None,
    "reconcile": None,
    "law": None,
    "flops": None,
    "inference_tokens": None,
    "fit.isoflop_robust": "fit.isoflop.robust",  # options of a fit method, in the section of its name
    "fit.isoflop_bias_corrected": "fit.isoflop.bias_corrected",
    "fit.residuals": "fit.parametric.residuals",
    "fit.irreducible_loss": "fit.parametric.irreducible_loss",
    "fit.kaplan_n_params": "fit.kaplan.n_params",
    "fit.data_constrained_base": "fit.data_constrained.base",
    "parametrization": None,  # mup exactly if mup_base_width is a number
    "estimate.currency": None,
    "estimate.startup_s": None,  # it entered no estimate
}
"""By dotted key of an earlier version: the dotted key that replaced it, None for a key that was removed."""


def upgrade_experiment(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a stored experiment's plain dict with the keys of this version.

    Raises AttributeError where a section is not a dict.

    >>> upgrade_experiment({"name": "demo", "law": None})
    {'name': 'demo'}
    """
    upgraded = _copy(values)
    for old, new in CHANGED_KEYS.items():
        value = _pop(upgraded, old)
        if new is not None and value is not _ABSENT:
            _put(upgraded, new, value)
    return upgraded


_ABSENT = object()


def _pop(values: dict[str, Any], dotted: str) -> Any:
    """Remove a dotted key and return its value, `_ABSENT` where it has none."""
    *parents, key = dotted.split(".")
    for parent in parents:
        values = values.get(parent, {})
    return values.pop(key, _ABSENT)


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted key, in sections that are created where they are missing."""
    *parents, key = dotted.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[key] = value


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}
