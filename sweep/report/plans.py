"""Plans as JSON documents: the output of `sweep plan --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sweep.config.places import sweep_directory
from sweep.records import Plan, PlannedRun
from sweep.report.hparam_summary import hyperparameters
from sweep.store.run_store import RunStore


def run_states(plan: Plan) -> dict[str, str]:
    """Return the state of each run by run key: "cached" if it has a result, else "planned"."""
    store = RunStore(sweep_directory(plan.experiment))
    return {run.run_key: "cached" if store.has_result(run.run_key) else "planned" for run in plan.runs}


def plan_document(plans: Sequence[Plan], states: Mapping[str, str]) -> dict[str, Any]:
    """Return the document of one plan, or of several plans that are the arms of one sweep."""
    return {
        "experiment": plans[0].experiment.name,
        "runs": [_run_document(run, states[run.run_key]) for plan in plans for run in plan.runs],
        "dropped": [asdict(cell) for plan in plans for cell in plan.dropped],
        "warnings": [warning for plan in plans for warning in plan.warnings],
        "flops_shared": sum(run.flops_shared for plan in plans for run in plan.runs),
        "hyperparameters": known_hparams(plans[0]),
    }


def known_hparams(plan: Plan) -> Mapping[str, Any] | str:
    """Return the summary of the plan's hyperparameter check, or "unmeasured"."""
    runs = ((run.config.name, run.run_key) for run in plan.runs)
    return hyperparameters(sweep_directory(plan.experiment), plan.experiment.arm, runs)


def _run_document(run: PlannedRun, state: str) -> dict[str, Any]:
    config = run.config
    return {
        "run_key": run.run_key,
        "name": config.name,
        "arm": config.arm,
        "flops_budget": config.flops_budget,
        "flops": run.flops,
        "flops_shared": run.flops_shared,
        "budget_error": run.budget_error,
        "n_params": run.n_params,
        "n_tokens": config.n_tokens,
        "corpus_share": run.corpus_share,
        "d_model": config.model.d_model,
        "n_layers": config.model.n_layers,
        "n_heads": config.model.n_heads,
        "batch_tokens": config.batch_tokens,
        "n_steps": config.n_steps,
        "lr_peak": config.optimizer.lr_peak,
        "warmup_steps": config.schedule.warmup_steps,
        "seed": config.seed,
        "memory_bytes": run.memory_bytes,
        "time_s": run.time_s,
        "cost": run.cost,
        "status": state,
    }
