"""Times calls in turn, round by round, and voids rounds in which the machine was not itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

PROBE_TOLERANCE = 0.10  # of the 1-thread GEMM's time, beyond which a round is void
IN_A_ROW = 10  # calls between two waits for a CUDA device: a step may prepare the next while it computes


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Median seconds of every contestant in one round, and of the probe around it."""

    seconds: Mapping[str, float]
    probe_s: float


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median over `repeats` calls; on a CUDA device of the means over so many in a row."""
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
    """A 1-thread product of 512 by 512 matrices on the CPU: how fast the machine is now."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.ones(512, 512)
    taken = _median(lambda: torch.mm(a, a), 15, in_a_row=1)
    torch.set_num_threads(threads)
    return taken


def rounds(contestants: Mapping[str, Callable[[], float]], n: int) -> list[Round]:
    """Every contestant's seconds, in turn, `n` times; rounds with an odd probe are left out.

    The probe of a round is the slower of two, before and after; the fastest round sets the standard.
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
    """Median of the paired ratios slow / fast; None with fewer than three valid rounds."""
    if len(valid) < 3:
        return None
    return statistics.median(one.seconds[slow] / one.seconds[fast] for one in valid)


def median(valid: list[Round], name: str) -> float:
    """Median seconds of one contestant."""
    return statistics.median(one.seconds[name] for one in valid)
