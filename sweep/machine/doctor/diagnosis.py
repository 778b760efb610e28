"""The result of `sweep doctor`: a list of checks, each with a finding and a remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "missing", "absent"]
"""`missing`: the experiment cannot run without it. `absent`: optional and not installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    state: State
    found: str
    remedy: str | None = None  # set unless the state is ok


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """The results of all checks."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True if the experiment can run on this machine."""
        return all(check.state != "missing" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the document printed by `sweep doctor --json`."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def to_text(self) -> str:
        """Return a line for each check, followed by its remedy if it is not ok."""
        width = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{check.state:<8}{check.name:<{width}}  {check.found}")
            lines += [f"{'':<{width + 10}}→ {check.remedy}"] if check.remedy else []
        verdict = "can run here" if self.ok else "cannot run here: see the missing items above"
        return "\n".join([*lines, f"the experiment {verdict}"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """The requirements of an experiment on the machine that runs it."""

    results_dir: Path
    data_dir: Path
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    packages: tuple[str, ...]  # required packages, including torch
    memory_bytes: int  # of the largest run
    refusal: str | None  # error message if the experiment cannot be planned
    speed: str | None = None  # measured speed of a worker; None where it is not known
    speed_remedy: str = "set estimate.flops_per_second"
    launch: str = "local"  # name of the launcher
    launch_refusal: str | None = None  # error message if the launcher cannot be used here
