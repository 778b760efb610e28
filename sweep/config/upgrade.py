"""Upgrade of stored experiments: keys of earlier versions under their present names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

RENAMED = {
    "fit.isoflop_robust": "fit.isoflop.robust",
    "fit.isoflop_bias_corrected": "fit.isoflop.bias_corrected",
    "fit.residuals": "fit.parametric.residuals",
    "fit.irreducible_loss": "fit.parametric.irreducible_loss",
    "fit.kaplan_n_params": "fit.kaplan.n_params",
    "fit.data_constrained_base": "fit.data_constrained.base",
}
"""Old key to new key, with dots between sections."""


def upgrade_experiment(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored experiment with every old key moved to its present place.

    >>> upgrade_experiment({"fit": {"seed": 3, "isoflop_robust": True}})
    {'fit': {'seed': 3, 'isoflop': {'robust': True}}}
    """
    upgraded = copy.deepcopy(dict(values))
    for old, new in RENAMED.items():
        section, _, key = old.rpartition(".")
        parent = _section(upgraded, section)
        if parent is not None and key in parent:
            _put(upgraded, new, parent.pop(key))
    return upgraded


def _section(values: dict[str, Any], path: str) -> dict[str, Any] | None:
    """Return the section at `path`, or None if there is none."""
    found: Any = values
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    """Set the key at `path`, creating its sections."""
    *sections, key = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[key] = value
