"""sweep: train small decoders, fit scaling laws, extrapolate.

The names below are for notebooks and scripts. They are imported on first use: `import sweep` itself loads
neither torch nor pandas.

>>> import sweep
>>> experiment = sweep.compose_experiment(["experiment=smoke", "seeds=[0,1]"])
>>> experiment.name, experiment.seeds
('smoke', (0, 1))

Train it, fit it and predict from it:

    sweep.run_experiment(experiment)
    smoke = sweep.open_sweep("results/smoke")
    smoke.points()                   # a DataFrame, one row a run
    fitted = smoke.fit()             # fitted.a, fitted.b, fitted.E; fitted.methods
    smoke.answer(1e11)               # N, D and loss with intervals
    smoke.figure("isoflop")          # a matplotlib figure
    smoke.report()
    smoke.validate()

Fit a table of somebody else's runs, a file or a DataFrame:

    sweep.fit_table("runs.csv")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.config.compose import compose_experiment
    from sweep.fit import read_fit, read_table
    from sweep.study.run import run_experiment
    from sweep.study.sweep import open_sweep
    from sweep.study.tables import fit_optima, fit_table

__all__ = [
    "compose_experiment",
    "fit_optima",
    "fit_table",
    "open_sweep",
    "read_fit",
    "read_table",
    "run_experiment",
]

_HOMES = {
    "compose_experiment": "sweep.config.compose",
    "fit_optima": "sweep.study.tables",
    "fit_table": "sweep.study.tables",
    "open_sweep": "sweep.study.sweep",
    "read_fit": "sweep.fit",
    "read_table": "sweep.fit",
    "run_experiment": "sweep.study.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sweep' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
