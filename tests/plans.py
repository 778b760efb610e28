"""Planned runs without a grid."""

from sweep import flops
from sweep.identity import run_key
from sweep.records import PlannedRun


def planned(run):
    return PlannedRun(
        run_key=run_key(run),
        config=run,
        flops=flops.count(run.model, run.n_tokens).flops,
        n_params=flops.n_params(run.model).total,
        budget_error=0.0,
        corpus_share=None,
        memory_bytes=0,
        time_s=0.0,
        cost=0.0,
    )
