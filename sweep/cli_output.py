"""What verbs show: laws, one by one or by arm, and how fast workers are together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from sweep.report.text.terminal import console, print_json, say

if TYPE_CHECKING:  # scipy and pandas: --help must not wait for them
    from sweep.config import ExperimentConfig
    from sweep.fit import Fit
    from sweep.machine.packing import Throughput


def show_fits(fits: Mapping[str | None, Fit], as_json: bool) -> None:
    """One fit as it is; those of several arms each under its name."""
    if as_json:
        documents = {arm or "": fitted.to_json() for arm, fitted in fits.items()}
        print_json({"arms": documents} if None not in fits else documents[""])
        return
    from sweep.report.text.fit import fit_text

    for arm, fitted in fits.items():
        if arm is not None:
            say(f"arm {arm}")
        console().print(fit_text(fitted))


def measure_packing(arms: Sequence[ExperimentConfig], as_json: bool) -> None:
    """Measure how many workers should share a device with the sizes of an experiment, and say it."""
    from sweep.machine.workers import measure_and_remember
    from sweep.report.text.plan import packing_line
    from sweep.study import run as study

    rows: list[Throughput] = []

    def show(row: Throughput) -> None:
        rows.append(row)
        say(packing_line(row))

    study.check_extras()
    chosen = measure_and_remember([study.plan(arm) for arm in arms], show)
    if as_json:
        print_json({"rows": [asdict(row) for row in rows], "chosen": asdict(chosen)})
    say(
        f"{chosen.n_workers} worker{'s' if chosen.n_workers > 1 else ''} on a device"
        f"{' with MPS' if chosen.mps else ''}, {chosen.speedup:.2f} times one alone: remembered"
    )
