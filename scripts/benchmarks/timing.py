"""Timing of calls in turn, in rounds; rounds in which the machine was slow are discarded."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

PROBE_TOLERANCE = 0.10  # a round is discarded if the 1-thread GEMM is slower than this fraction
IN_A_ROW = 10  # calls between synchronisations of a CUDA device, since a step prepares the next


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Median seconds of every contestant and of the probe in one round."""

    seconds: Mapping[str, float]
    probe_s: float


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median over `repeats` calls; on CUDA, of means over IN_A_ROW calls."""
    return _median(call, repeats, IN_A_ROW if torch.cuda.is_available() else 1)


def _median(call: Callable[[], object], repeats: int, in_a_row: int) -> float:
    taken = []
    for _ in range(-(-repeats // in_a_row)):
        _wait()
        start = time.perf_counter()
        for _ in range(in_a_row):
            call()
        _wait()
        taken.append((time.perf_counter() - start) / in_a_row)
    return statistics.median(taken)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def probe() -> float:
    """Time a 1-thread product of 512 x 512 matrices, as a measure of the machine's current speed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.ones(512, 512)
    taken = _median(lambda: torch.mm(a, a), 15, in_a_row=1)
    torch.set_num_threads(threads)
    return taken


def rounds(contestants: Mapping[str, Callable[[], float]], n: int) -> list[Round]:
    """Time all contestants in turn, `n` times; rounds with a slow probe are discarded.

    The probe of a round is the slower one of before and after; the fastest round is the reference.
    """
    seen = []
    for _ in range(n):
        before = probe()
        taken = {}
        for name, contestant in contestants.items():
            taken[name] = contestant()
            print(f"round {len(seen) + 1} {name} {taken[name]:.4g} s", flush=True)
        seen.append(Round(seconds=taken, probe_s=max(before, probe())))
    standard = min(one.probe_s for one in seen)
    return [one for one in seen if one.probe_s <= standard * (1 + PROBE_TOLERANCE)]


def ratio(valid: list[Round], slow: str, fast: str) -> float | None:
    """Return the median of the paired ratios slow / fast; None with fewer than three valid rounds."""
    if len(valid) < 3:
        return None
    return statistics.median(one.seconds[slow] / one.seconds[fast] for one in valid)


def median(valid: list[Round], name: str) -> float:
    """Return the median seconds of one contestant."""
    return statistics.median(one.seconds[name] for one in valid)
