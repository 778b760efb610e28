"""The supervisor process, `python -m sweep.launch.supervisor SPEC`: keeps workers running.

A detached sweep has one in the background; every SLURM job and every Ray task runs one around its worker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sweep.credentials import redact
from sweep.errors import EXIT_FAILED, EXIT_STOPPED
from sweep.launch.base import supervise_until_done
from sweep.launch.choose import supervised_launcher
from sweep.launch.process import (
    StopFlag,
    exit_code,
    hold_stop_signals,
    stop_with_supervisor,
    stopped_by_signals,
)
from sweep.launch.spec import LaunchSpec, check_visible, read_spec
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import catch_up

POLL_S = 0.5  # between two reads of the stop flag


def supervise(spec: LaunchSpec, stop: StopFlag) -> int:
    """Run the workers of `spec` until no runs are left or `stop` is set; return the exit code.

    Raises InputError if the sweep or a path that it needs does not exist on this machine.
    """
    check_visible((spec.sweep_dir, *spec.needs))
    store = RunStore(spec.sweep_dir)
    launcher = supervised_launcher(store.latest_experiment().launch, spec)
    state = supervise_until_done(launcher, should_stop=lambda: stop.reason is not None, look=lambda: POLL_S)
    _complete_copy(store)
    if state.gave_up:
        sys.stderr.write(f"{state.gave_up}\n")
        return EXIT_FAILED
    if state.stopped:
        return EXIT_STOPPED
    return EXIT_FAILED if store.status().n_failed else 0


def _complete_copy(store: RunStore) -> None:
    """Write the points that the SQL copy of a finished sweep lacks: no other process may run later."""
    if store.status().finished:
        experiment = store.latest_experiment()
        problem = catch_up(store, experiment.store, experiment.name)
        if problem is not None:
            sys.stderr.write(f"{redact(problem)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the supervisor with the specification in `argv`; return its exit code (design.md, Verbs)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    stop = StopFlag()
    if os.environ.pop("SWEEP_SUPERVISED", None):
        stop_with_supervisor(stop)
    with stopped_by_signals(stop):
        return exit_code(lambda: supervise(read_spec(arguments[0] if arguments else ""), stop))


if __name__ == "__main__":
    hold_stop_signals()
    sys.exit(main())
