"""Independent jobs in processes forked from this one, which have everything loaded that it has."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

_jobs: Sequence[Callable[[], Any]] = ()  # in a forked process, those of its parent


def run_forked(jobs: Sequence[Callable[[], Result]], n_processes: int) -> list[Result]:
    """What the jobs return, in their order; up to `n_processes` of them at a time, each in a fork.

    Results are pickled, jobs are not. Forking is for programs that know their threads, as the command line
    does: a fork has none but the caller's, and keeps the locks that others held. With one process, and on
    systems other than Linux, the jobs are simply called.
    """
    n_processes = min(n_processes, len(jobs))
    if n_processes < 2 or sys.platform != "linux":
        return [job() for job in jobs]
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():  # from Python 3.12 on: the threads of numpy's BLAS, which know of forks
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        with ProcessPoolExecutor(n_processes, context, initializer=_inherit, initargs=(jobs,)) as pool:
            return list(pool.map(_run, range(len(jobs))))


def _inherit(jobs: Sequence[Callable[[], Any]]) -> None:
    global _jobs
    _jobs = jobs


def _run(index: int) -> Any:
    return _jobs[index]()
