"""What the verbs that fit show: laws, one by one or by arm, and the files they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.report.terminal import console, print_json, say

if TYPE_CHECKING:  # scipy and pandas: --help must not wait for them
    from sweep.config import ExperimentConfig
    from sweep.fit import Fit


def _fit_and_draw(sweep_dir: Path, experiment: ExperimentConfig) -> None:
    from sweep import analysis

    fits = analysis.fit_sweep(sweep_dir, experiment.fit)
    _show_fits(fits, as_json=False)
    figures = analysis.report(sweep_dir)
    laws = [analysis.arm_directory(sweep_dir, arm) / "fit.json" for arm in fits]
    for path in (sweep_dir / "points.csv", sweep_dir / "points.parquet", *laws, *figures):
        say(str(path))


def _show_fits(fits: Mapping[str | None, Fit], as_json: bool) -> None:
    """One fit as it is; those of several arms each under its name."""
    if as_json:
        documents = {arm or "": fitted.to_json() for arm, fitted in fits.items()}
        print_json({"arms": documents} if None not in fits else documents[""])
        return
    from sweep.report.text import fit_text

    for arm, fitted in fits.items():
        if arm is not None:
            say(f"arm {arm}")
        console().print(fit_text(fitted))
