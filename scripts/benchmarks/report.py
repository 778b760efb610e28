"""Runs the parts of the training benchmark and prints their tables."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scripts.benchmarks import peer
from scripts.benchmarks.floor import attention, products
from scripts.benchmarks.race import CPU, GPU, GPU_LARGE, Race, RaceConfig
from scripts.benchmarks.shapes import (
    CPU_SHAPES,
    GPU_SHAPES,
    R2,
    Shape,
    counted,
    random_tokens,
    stepper,
)
from scripts.benchmarks.timing import IN_A_ROW, median, ratio, rounds, seconds
from sweep import flops
from sweep.plan.estimate import memory
from sweep.train.device import device_name, model_flops_utilisation
from sweep.train.step import TrainingStep

PARTS = ("steps", "r2", "r1", "r1_large")
RATIOS = ("r1_sequential", "r1_parallel", "r2_fp32", "r2_bf16", "r3")
CALLS = 20  # steps per round; the median of five times IN_A_ROW on a GPU
N_THREADS = 2

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchRequest:
    """Parts to measure and a callback that saves the document."""

    parts: Sequence[str]
    checkout: Path | None  # of nanoGPT
    n_rounds: int
    scratch: Path
    shapes: Sequence[str] | None  # names, for steps and for R2 on a GPU; None: all
    budgets: Sequence[float] | None  # of R1, in FLOPs; None: the defaults
    save: Callable[[Document], None]  # called after every result, in case a later part fails
    deadline: float = math.inf  # of time.monotonic(): no shape and no part is begun after it


def measure(known: Document, request: BenchRequest) -> Document:
    """Measure the requested parts; return `known`, if of the same machine and torch version, updated."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(min(N_THREADS, torch.get_num_threads()) if device == "cpu" else 1)
    document = {
        "machine": device_name(torch.device(device)),
        "torch": torch.__version__,
        "grid": [asdict(shape) for shape in (CPU_SHAPES if device == "cpu" else GPU_SHAPES)],
        "rows": [],
        "ratios": dict.fromkeys(RATIOS),
    }
    if all(known.get(key) == document[key] for key in ("machine", "torch")):
        document |= known
    configs = {"r1": CPU} if device == "cpu" else {"r1": GPU, "r1_large": GPU_LARGE}
    for part in PARTS:
        if part not in request.parts or time.monotonic() > request.deadline:
            continue
        if part == "steps":
            _steps(document, request, device)
        elif part == "r2" and device == "cpu":
            _limits(document, request)
        elif part == "r2" and request.checkout is not None:
            _compare_on_gpu(document, request, request.checkout)
        elif part in configs and request.checkout is not None:
            _race(document, part, configs[part], request, request.checkout)
        request.save(document)
    print(document["machine"], document["ratios"])
    return document


def _chosen(shapes: Sequence[Shape], request: BenchRequest) -> Iterator[Shape]:
    """Yield the requested shapes, in the order of the request, until the deadline."""
    by_name = {shape.name: shape for shape in shapes}
    for name in request.shapes or by_name:
        if name in by_name and time.monotonic() <= request.deadline:
            yield by_name[name]


def _steps(document: Document, request: BenchRequest, device: str) -> None:
    """Time the training step of each shape and precision."""
    document["rows"] = []
    for shape in _chosen(CPU_SHAPES if device == "cpu" else GPU_SHAPES, request):
        for precision in ("fp32", "bf16") if device == "cpu" else ("bf16",):
            _reset_memory(device)
            step = stepper(shape, precision, device, request.scratch)
            call = counted(step)
            seconds(call, 5)
            calls = 5 * IN_A_ROW if device == "cuda" else CALLS
            row = _row(shape, precision, device, seconds(call, calls)) | _execution(step)
            del step, call  # its memory is not part of the next row
            document["rows"].append(row)
            _print(row)
            request.save(document)


def _reset_memory(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _execution(step: TrainingStep) -> Document:
    """Return how a step was executed: choices, compilation, and peak memory next to its estimate."""
    needed = memory(step.run, step.micro_batch_size, device=step.device.type)
    found: Document = {"choices": dict(step.choices), "compile_s": step.compile_s}
    if step.device.type == "cuda":
        found["max_memory_allocated"] = torch.cuda.max_memory_allocated()
        found["max_memory_reserved"] = torch.cuda.max_memory_reserved()
    return found | {"estimated_rise_bytes": needed.rise, "micro_batch_size": step.micro_batch_size}


def _row(shape: Shape, precision: str, device: str, step_s: float) -> Document:
    n_tokens = shape.batch_size * shape.seq_len
    count = flops.count(shape.model(), n_tokens)
    on = torch.device(device)
    return {
        "shape": shape.name,
        "precision": precision,
        "n_threads": torch.get_num_threads(),
        "step_s": step_s,
        "tokens_per_second": n_tokens / step_s,
        "flops_per_second": count.flops / step_s,
        "mfu": model_flops_utilisation(count.flops, step_s, on),
        "mfu_causal": model_flops_utilisation(count.flops_causal, step_s, on),
    }


def _limits(document: Document, request: BenchRequest) -> None:
    """Measure R2 and R3 on the CPU: our steps, the lower bound and the peer's step, in turn."""
    checkout = request.checkout
    contestants: dict[str, Callable[[], float]] = {}

    def enter(name: str, call: Callable[[], object]) -> None:
        seconds(call, 3)
        contestants[name] = lambda: seconds(call, CALLS)

    for precision in ("fp32", "bf16"):
        enter(f"ours_{precision}", counted(stepper(R2, precision, "cpu", request.scratch)))
    enter("products", products(R2))
    enter("attention", attention(R2))
    if checkout is not None:
        module = peer.load(checkout)
        document["parity"] = {"shape": R2.name, "steps": peer.PARITY_STEPS, "worst": peer.parity(module, R2)}
        steps = peer.Steps(checkout, R2, "cpu", _token_file(request.scratch, R2))
        steps(3)
        contestants["peer_fp32"] = lambda: steps(CALLS)
    valid = rounds(contestants, request.n_rounds)
    if checkout is not None:
        steps.end()
    document["r2"] = {"n_valid": len(valid), "seconds": {name: median(valid, name) for name in contestants}}
    for name in contestants:
        print(f"{name:<20}{median(valid, name) * 1e3:9.2f} ms")
    for one in valid:
        taken = dict(one.seconds)
        one.seconds.update(floor=taken["attention"] + taken["products"])  # type: ignore[attr-defined]
    ratios = document["ratios"]
    ratios["r3"] = ratio(valid, "floor", "ours_fp32")
    if checkout is not None:
        ratios["r2_fp32"] = ratio(valid, "peer_fp32", "ours_fp32")
        ratios["r2_bf16"] = ratio(valid, "peer_fp32", "ours_bf16")


def _compare_on_gpu(document: Document, request: BenchRequest, checkout: Path) -> None:
    """Measure R2 on a GPU by size: steps of sweep and nanoGPT in turn, both compiled in bf16.

    A size at which nanoGPT fails, for instance out of memory, has no ratio.
    """
    document["r2"] = []
    for shape in _chosen(GPU_SHAPES, request):
        torch.cuda.empty_cache()  # freed for the peer's process
        theirs = peer.Steps(checkout, shape, "cuda", _token_file(request.scratch, shape))
        row: Document = {"shape": shape.name, "ratio": None}
        try:
            theirs(CALLS)
            step = stepper(shape, "bf16", "cuda", request.scratch)
            ours = counted(step)
            seconds(ours, CALLS)
            contestants = {"ours": partial(seconds, ours, CALLS), "peer": partial(theirs, CALLS)}
            valid = rounds(contestants, request.n_rounds)
            row |= {
                "n_valid": len(valid),
                "seconds": {name: median(valid, name) for name in contestants},
                "ratio": ratio(valid, "peer", "ours"),
                "micro_batch_size": step.micro_batch_size,
            }
            del step, ours, contestants
        except (RuntimeError, BrokenPipeError) as error:
            row["reason"] = str(error)
        theirs.end()
        document["r2"].append(row)
        print(row, flush=True)
        if shape.name == "124M":
            document["ratios"]["r2_bf16"] = row["ratio"]
        request.save(document)


def _token_file(scratch: Path, shape: Shape) -> Path:
    """Write the tokens in nanoGPT's format."""
    path = scratch / f"tokens-{shape.vocab_size}.bin"
    random_tokens(shape).astype("<u2").tofile(path)
    return path


def _race(document: Document, key: str, config: RaceConfig, request: BenchRequest, checkout: Path) -> None:
    """Measure R1: both programs in turn with equal exact FLOPs; two at once only where each has a core."""
    if request.budgets is not None:
        config = replace(config, budgets=tuple(request.budgets))
    race = Race(request.scratch / key, checkout, config)
    contestants = {"ours": race.ours, "sequential": race.sequential}
    if not config.cuda:
        contestants["parallel"] = race.parallel
    valid = rounds(contestants, request.n_rounds)
    document[key] = {
        "n_valid": len(valid),
        "seconds": {name: median(valid, name) for name in contestants} if valid else None,
        "rounds": [dict(one.seconds) for one in valid],
        "flops": sum(run.flops for run in race.runs),
        "runs": race.losses(),
    }
    for name in contestants.keys() - {"ours"}:
        document["ratios"][f"{key}_{name}"] = ratio(valid, name, "ours")
    print(document[key])


def _print(row: Document) -> None:
    rate = f"{row['flops_per_second'] / 1e9:9.1f} GFLOP/s"
    if row["mfu"] is not None:
        rate += f"  MFU {row['mfu']:.1%}, causal {row['mfu_causal']:.1%}"
    print(
        f"{row['shape']:<14}{row['precision']:<6}{row['step_s'] * 1e3:9.2f} ms"
        f"{row['tokens_per_second']:12,.0f} tokens/s{rate}",
        flush=True,
    )
