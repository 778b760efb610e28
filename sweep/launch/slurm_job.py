"""Inside a SLURM job: one supervised worker, told how long it has, and the job's return to the queue.

SLURM sends SIGUSR1 before the time limit, and before a preemption where the cluster is set so: the worker
saves, and the job requeues itself while the sweep has work. On SIGTERM SLURM is ending the job itself, to
requeue it (preemption) or for good (scancel): then nothing is asked of it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set

from sweep.errors import EXIT_STOPPED, InputError
from sweep.launch.deadline import MIN_CLAIM_S, STOP_AT
from sweep.launch.exits import exit_code
from sweep.launch.process import StopFlag, hold_stop_signals, stopped_by_signals
from sweep.launch.slurm import run_tool
from sweep.launch.supervisor import read_orders, supervise
from sweep.store.run_store import RunStore

REQUEUE_PATIENCE_S, REQUEUE_PAUSE_S = 30.0, 2.0  # with a controller that is busy or being restarted


def tell_deadline(environ: Mapping[str, str], signal_s: float, min_claim_s: float) -> dict[str, str]:
    """What the worker is told of its time, as environment variables; empty without a time limit.

    Raises InputError when the limit leaves no time to train at all: the job would requeue for ever.
    """
    end = job_end(environ)
    if end is None:
        return {}
    left_s = end - signal_s - time.time()
    if left_s <= min_claim_s:
        raise InputError(
            f"this job ends in {end - time.time():.0f} s, and launch.signal_s={signal_s:g} with "
            f"launch.min_claim_s={min_claim_s:g} leave no time to train: raise launch.time"
        )
    return {STOP_AT: f"{end - signal_s:.0f}", MIN_CLAIM_S: f"{min_claim_s:g}"}


def job_end(environ: Mapping[str, str]) -> float | None:
    """When SLURM will end this job, in seconds since 1970; None when it has no limit, or does not tell."""
    told = environ.get("SLURM_JOB_END_TIME", "")  # newer versions only
    if not told.isdigit():
        asked = ["squeue", "--noheader", "--format=%e", f"--jobs={this_job(environ)}"]
        told = run_tool(asked, {**environ, "SLURM_TIME_FORMAT": "%s"}).stdout.strip()
    return float(told) if told.isdigit() else None


def this_job(environ: Mapping[str, str]) -> str:
    """What SLURM's tools call this job: one member of an array has the number of the whole array."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID", "")


def requeue(environ: Mapping[str, str], wanted: Callable[[], bool]) -> bool:
    """Ask SLURM to run this job again, and anew while its controller does not answer; True when it will.

    Before each try `wanted` says whether the job is still to come back.
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
    """Carry out the orders in `argv`; returns the exit code of the job."""
    stop = StopFlag()
    with stopped_by_signals(stop) as received:
        return exit_code(lambda: _carry_out(argv, stop, received))


def _carry_out(argv: Sequence[str], stop: StopFlag, received: Set[int]) -> int:
    orders = read_orders(argv[0] if argv else "")
    margins = [float(word.partition("=")[2]) for word in argv[1:3]]
    os.environ.update(tell_deadline(os.environ, *margins))
    code = supervise(orders, stop)
    store = RunStore(orders.sweep_dir)

    def wanted() -> bool:
        ended_by_slurm = received & {signal.SIGTERM, signal.SIGINT}
        return not ended_by_slurm and not store.cancelled()

    return 0 if code == EXIT_STOPPED and requeue(os.environ, wanted) else code


if __name__ == "__main__":
    hold_stop_signals()
    sys.exit(main(sys.argv[1:]))
