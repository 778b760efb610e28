"""What a diagnosis is: checks, each with what was found and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "missing", "absent"]
"""`missing` keeps the experiment from running; `absent` is something else that could be had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    remedy: str | None = None  # what to do when it is not ok


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Everything that was looked at."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether the experiment can run here."""
        return all(check.state != "missing" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """What `sweep doctor --json` prints."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def to_text(self) -> str:
        """A line for each check, and one for what to do where it is not ok."""
        width = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{check.state:<8}{check.name:<{width}}  {check.found}")
            lines += [f"{'':<{width + 10}}→ {check.remedy}"] if check.remedy else []
        ends = "can run here" if self.ok else "cannot run here: see what is missing above"
        return "\n".join([*lines, f"the experiment {ends}"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What an experiment asks of the machine it runs on."""

    results_dir: Path
    data_dir: Path
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    packages: tuple[str, ...]  # that must be importable, torch among them
    memory_bytes: int  # of the largest run
    refusal: str | None  # why no plan can be made, if none can
    launch: str = "local"  # the launcher
    launch_refusal: str | None = None  # why it cannot work from here
