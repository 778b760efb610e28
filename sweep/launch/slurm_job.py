"""The process inside a SLURM job: one supervised worker with a deadline, and the requeue of the job.

SLURM sends SIGUSR1 before the time limit, and before a preemption if the cluster is configured so: the worker
saves, and the job requeues itself while runs are left. On SIGTERM SLURM itself ends the job, to requeue it
(preemption) or for good (scancel), so the job requests nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set

from sweep.errors import EXIT_STOPPED, InputError
from sweep.launch.process import (
    DEADLINE_VARIABLE,
    MIN_CLAIM_VARIABLE,
    StopFlag,
    exit_code,
    hold_stop_signals,
    stopped_by_signals,
)
from sweep.launch.slurm import run_tool
from sweep.launch.spec import read_spec
from sweep.launch.supervisor import supervise
from sweep.store.run_store import RunStore

REQUEUE_PATIENCE_S, REQUEUE_PAUSE_S = 30.0, 2.0  # for a controller that is busy or restarting


def deadline_variables(environ: Mapping[str, str], signal_s: float, min_claim_s: float) -> dict[str, str]:
    """Return the worker's deadline as environment variables; empty without a time limit.

    Raises InputError if the limit leaves no time to train: the job would requeue for ever.
    """
    end = job_end(environ)
    if end is None:
        return {}
    left_s = end - signal_s - time.time()
    if left_s <= min_claim_s:
        raise InputError(
            f"this job ends in {end - time.time():.0f} s; launch.signal_s={signal_s:g} and "
            f"launch.min_claim_s={min_claim_s:g} leave no time to train: raise launch.time"
        )
    return {DEADLINE_VARIABLE: f"{end - signal_s:.0f}", MIN_CLAIM_VARIABLE: f"{min_claim_s:g}"}


def job_end(environ: Mapping[str, str]) -> float | None:
    """Return when this job's time limit ends, in seconds since 1970; None if it has none or it is unknown."""
    end = environ.get("SLURM_JOB_END_TIME", "")  # newer versions only
    if not end.isdigit():
        query = ["squeue", "--noheader", "--format=%e", f"--jobs={this_job(environ)}"]
        end = run_tool(query, {**environ, "SLURM_TIME_FORMAT": "%s"}).stdout.strip()
    return float(end) if end.isdigit() else None


def this_job(environ: Mapping[str, str]) -> str:
    """Return the id of this job for SLURM's tools.

    For a member of an array it is ARRAY_TASK: SLURM_JOB_ID of one member equals the id of the whole array.
    """
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID", "")


def requeue(environ: Mapping[str, str], wanted: Callable[[], bool]) -> bool:
    """Request a requeue of this job, repeatedly while the controller does not answer; True on success.

    `wanted` is called before each request and ends the attempts when it returns False.
    """
    job, give_up_at = this_job(environ), time.monotonic() + REQUEUE_PATIENCE_S
    while wanted():
        done = run_tool(["scontrol", "requeue", job])
        if done.returncode == 0:
            sys.stderr.write(f"requeued {job}\n")
            return True
        if time.monotonic() >= give_up_at:
            sys.stderr.write(f"not requeued: {done.stderr}\n")
            return False
        time.sleep(REQUEUE_PAUSE_S)
    return False


def main(argv: Sequence[str]) -> int:
    """Run the job with the specification in `argv`; return its exit code."""
    stop = StopFlag()
    with stopped_by_signals(stop) as received:
        return exit_code(lambda: _run_job(argv, stop, received))


def _run_job(argv: Sequence[str], stop: StopFlag, received: Set[int]) -> int:
    spec = read_spec(argv[0] if argv else "")
    margins = [float(word.partition("=")[2]) for word in argv[1:3]]
    os.environ.update(deadline_variables(os.environ, *margins))
    code = supervise(spec, stop)
    store = RunStore(spec.sweep_dir)

    def wanted() -> bool:
        ended_by_slurm = received & {signal.SIGTERM, signal.SIGINT}
        return not ended_by_slurm and not store.cancelled()

    return 0 if code == EXIT_STOPPED and requeue(os.environ, wanted) else code


if __name__ == "__main__":
    hold_stop_signals()
    sys.exit(main(sys.argv[1:]))
