"""Rounds of an adaptive sweep: suggested runs are added until the answer is narrow enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweep.config import ExperimentConfig
from sweep.records import Plan
from sweep.report.suggestion import Suggestion
from sweep.store.run_store import RunStore
from sweep.study.suggest import DEFAULT_SHARE, grid_flops, planned_flops, suggestion

ROUND_SHARE = 0.25  # of the allowance: added before the fit is repeated


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The next step of an adaptive sweep: plans to train, or none, with the reason."""

    plans: tuple[Plan, ...]
    reason: str


def decide(sweep_dir: Path, experiment: ExperimentConfig) -> Decision:
    """Return the next round of an adaptive arm; it follows from the points and the plans on disk alone."""
    store, settings = RunStore(sweep_dir), experiment.adaptive
    allowance = settings.flops_budget or DEFAULT_SHARE * grid_flops(store, experiment.arm)
    spent = planned_flops(store, experiment.arm, suggested=True)
    found = suggestion(
        sweep_dir,
        experiment,
        settings.target,
        max(allowance - spent, 0.0),
        settings.max_budget,
        settings.goal,
        ROUND_SHARE * allowance,
    )
    state = _state(found, settings.goal)
    narrow = found.n_params_opt is not None and found.n_params_opt.factor <= settings.goal
    if narrow and not found.unbracketed:
        return Decision(plans=(), reason=f"the goal is reached: {state}")
    left = f"{spent:.3g} of {allowance:.3g} FLOPs of the allowance (adaptive.flops_budget) are spent"
    if not found.plans:
        open_ends = "".join(f"; {text}" for text in found.unrepaired)
        return Decision(plans=(), reason=f"no further run is added, {left}: {state}{open_ends}")
    n_runs = len(found.runs)
    runs = f"{n_runs} run{'s' * (n_runs > 1)} ({found.flops:.3g} FLOPs)"
    return Decision(plans=found.plans, reason=f"adding {runs}, {left}: {state}")


def _state(found: Suggestion, goal: float) -> str:
    n_open = len(found.unbracketed)
    minima = f", {n_open} budget{'s' * (n_open > 1)} without a valid minimum" if n_open else ""
    if found.n_params_opt is None:
        return f"there is no answer yet{minima}"
    return (
        f"N_opt at {found.target:.3g} FLOPs is known within a factor {found.n_params_opt.factor:.3g}, "
        f"adaptive.goal={goal:g}{minima}"
    )
