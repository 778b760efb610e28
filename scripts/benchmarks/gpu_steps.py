"""The steps of scripts/gpu_check: `python -m scripts.benchmarks.gpu_steps STEP OPTIONS`, options as JSON.

Each step writes STEP.json after every result, so that a step stopped at its limit leaves what it has.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from scripts.benchmarks.report import BenchRequest, measure
from scripts.benchmarks.shapes import CPU_SHAPES, GPU_SHAPES, Shape, counted, stepper
from scripts.benchmarks.stacked import StackedStep
from scripts.benchmarks.timing import seconds
from sweep.config.compose import compose_experiment
from sweep.errors import Interrupted
from sweep.machine.bench import Bench, measure_packing
from sweep.machine.devices import cores, devices
from sweep.machine.doctor.devices import check_compiler
from sweep.machine.mps import CONTROL
from sweep.machine.speed import MEASURE
from sweep.machine.torch_probe import installed_gpus, probe_torch
from sweep.records import Placement
from sweep.study.plan import plan_experiment, prepare_data
from sweep.train.cuda import compiled
from sweep.train.loop import train
from sweep.train.models.cross_entropy import chunk_loss, fusible_chunk_loss

SWEEP = "import sys; from sweep.cli.app import main; sys.exit(main())"
TESTS = ("tests/train/test_cuda_step.py", "tests/train/test_interruptions.py")
RECORDED = "tests/train/test_recorded_graphs.py::test_replayed_steps_equal_those_carried_out"
KILL_AFTER_S = 40.0  # of the sweep, one worker

RESUME_BOUND = 1e-3
"""Largest change of the held-out loss, in nats per token, by stopping and resuming a run in the default mode,
where kernels may sum in another order each time; in the deterministic mode it is 0."""

Options = dict[str, Any]
Save = Callable[[Mapping[str, Any]], None]


def environment(options: Options, save: Save) -> None:
    """Report what is installed: driver, torch, compiler, MPS, cores, memory of the host."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,mig.mode.current"]
    smi = None
    if shutil.which("nvidia-smi"):
        smi = subprocess.run([*query, "--format=csv"], capture_output=True, text=True, check=False).stdout
    found = {
        "python": sys.version,
        "gpus": installed_gpus(),
        "nvidia_smi": smi,
        "compiler": check_compiler().found,
        "mps": shutil.which(CONTROL),
        "n_cores": len(cores()),
        "shared_memory_bytes": shutil.disk_usage("/dev/shm").total,
    }
    save(found)
    save(found | {"torch": probe_torch()})


def smoke(options: Options, save: Save) -> None:
    """Train two runs by `sweep run` on the device, and prepare the corpus of the later sweep next to it."""
    prepare = _start_sweep(options, "data", "prepare", *_experiment(options))
    arguments = ["experiment=smoke", "budgets=[3e9]", "grid.d_model=[12,16]", "precision=auto"]
    arguments += [f"trainer.device={options['device']}", "launch.n_workers=1", "name=gpu_smoke"]
    _sweep(options, "run", *arguments)
    save({"points": _points(options, "gpu_smoke")})
    if prepare.wait():
        raise RuntimeError("the corpus could not be prepared")
    save({"points": _points(options, "gpu_smoke"), "prepared": True})


def tests(options: Options, save: Save) -> None:
    """Run the tests that need the device, their files at the same time; on a CPU, one in their place."""
    on_gpu = options["device"] == "cuda"
    where = ["-k", "cuda"] if on_gpu else []
    where += ["-n", str(len(TESTS))] if on_gpu and importlib.util.find_spec("xdist") else []
    files = TESTS if on_gpu else (f"{RECORDED}[muon-4-0.9]",)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    command += ["--import-mode=importlib", "-o", "filterwarnings=default", *files, *where]
    done = subprocess.run(command, check=False)  # prints to the log of the step, which a time limit keeps
    log = Path(options["out"]) / "tests.log"
    save({"exit_code": done.returncode, "output": log.read_text().splitlines()[-30:] if log.exists() else []})
    done.check_returncode()


def steps(options: Options, save: Save) -> None:
    """Time steps by size, with compilation time and memory against its estimate."""
    names = ["d32 L2 T32"] if options["tiny"] else ["124M", "10M", "1M", "30M", "350M"]
    scratch = Path(options["out"]) / "scratch"
    request = BenchRequest(
        parts=["steps"], checkout=None, n_rounds=3, scratch=scratch, shapes=names, budgets=None, save=save,
        deadline=time.monotonic() + 0.8 * options["limit_s"],
    )  # fmt: skip
    measure({}, request)


def profile(options: Options, save: Save) -> None:
    """Profile steps of one sweep shape, time the head's chunk, and compile again in a fresh process."""
    shape, found = _sweep_shape(options), {}
    step = counted(stepper(shape, "bf16", options["device"], Path()))
    seconds(step, 3)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if options["device"] == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiled:
        found["step_s"] = seconds(step, 5)
    rows = sorted(profiled.key_averages(), key=lambda row: -_device_us(row, options))
    found["top"] = [
        {"name": row.key[:80], "calls": row.count, "us": _device_us(row, options)} for row in rows[:12]
    ]
    save(found)
    for vocab_size in (512,) if options["tiny"] else (8192, 50304):
        found[f"head_s_{vocab_size}"] = _head_seconds(options, vocab_size)
        save(found)
    found["compile_s_in_new_processes"] = [
        _compile_seconds(options) for _ in range(1 if options["tiny"] else 2)
    ]
    save(found)


def packing(options: Options, save: Save) -> None:
    """Measure packing by streams of one process, by stacking, and by processes (with MPS if possible).

    A way that fails is reported with its error; the others are measured all the same.
    """
    found: dict[str, Any] = {"processes": [], "streams": [], "stacked": []}

    def on_row(row: Any) -> None:
        found["processes"].append([row.n_params, row.n_workers, row.mps, row.steps_per_second])
        save(found)

    shape, device = _sweep_shape(options), options["device"]
    for name, measured in (("streams", _stream_rate), ("stacked", _stack_rate)):
        for n_runs in (1, 2) if options["tiny"] else (1, 2, 4):
            row: dict[str, Any] = {"n_runs": n_runs}
            try:
                row["steps_per_second"] = measured(shape, n_runs, device)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            found[name].append(row)
            save(found)
            gc.collect()
    plan = plan_experiment(compose_experiment(_experiment(options)))
    by_size = {run.n_params: run for run in plan.runs}
    chosen = [by_size[size] for size in sorted(by_size)[: 1 if options["tiny"] else 2]]
    used = cores()[:2] if options["tiny"] else cores()
    bench = Bench(
        device=devices(device)[0], cores=used, micro_batch_size=None, n_rounds=1,
        seconds=0.2 if options["tiny"] else 2.0,
    )  # fmt: skip
    measure_packing(chosen, bench, on_row)
    if all("error" in row for row in (*found["streams"], *found["stacked"])):
        raise RuntimeError("neither streams nor stacks could be measured")


def sweep(options: Options, save: Save) -> None:
    """Run a small IsoFLOP sweep, kill one worker with SIGKILL on the way, and fit the result."""
    started = time.monotonic()
    deadline = time.time() + options["limit_s"] - (10 if options["tiny"] else 20)
    limits = {"SWEEP_DEADLINE": f"{deadline:.0f}", "SWEEP_MIN_CLAIM_S": "3"}
    n_workers = 2 if options["tiny"] else 3
    run = _start_sweep(options, "run", *_experiment(options), f"launch.n_workers={n_workers}", **limits)
    killed = _kill_one_worker(run, 2.0 if options["tiny"] else KILL_AFTER_S)
    code = run.wait()
    save(
        {
            "exit_code": code,
            "killed_a_worker": killed,
            "wall_s": time.monotonic() - started,
            "points": _points(options, "gpu_check"),
        }
    )


def resume(options: Options, save: Save) -> None:
    """Train one run whole, and once stopped half way and resumed; compare the losses."""
    experiment = compose_experiment(_experiment(options))
    prepare_data(experiment)
    config = min(plan_experiment(experiment).runs, key=lambda run: run.flops).config
    n_steps = 20 if options["tiny"] else 400
    schedule = replace(config.schedule, warmup_steps=n_steps // 10, decay_steps=0, name="cosine")
    config = replace(config, n_tokens=n_steps * config.batch_tokens, schedule=schedule)
    place = Placement(
        data_dir=Path(options["out"]) / "data",
        device="cuda:0" if options["device"] == "cuda" else "cpu",
        n_threads=1,
        micro_batch_size=experiment.trainer.micro_batch_size,
        checkpoint_interval_s=1e9,
    )
    found = {}
    # deterministic first: torch reads cuBLAS's variable once, at the first matrix product of a process
    for mode in ("deterministic", "default") if options["device"] == "cuda" else ("default",):
        placement = replace(place, deterministic=mode == "deterministic")
        scratch = Path(options["out"]) / f"resume-{mode}"
        whole = train(config, placement, _Session(scratch / "whole"))
        try:
            train(config, placement, _Session(scratch / "halves", stop_at=n_steps // 2))
        except Interrupted:
            resumed = train(config, placement, _Session(scratch / "halves"))
        assert whole.loss is not None
        assert resumed.loss is not None
        found[mode] = {"whole": whole.loss, "resumed": resumed.loss, "ledger": dict(whole.ledger)}
        found[mode] |= {"difference": resumed.loss - whole.loss, "choices": dict(whole.choices)}
        save(found)
        bound = 0.0 if mode == "deterministic" else RESUME_BOUND
        if abs(found[mode]["difference"]) > bound:
            raise RuntimeError(f"resuming changed the loss by more than {bound:g} nats in {mode} mode")


def peer(options: Options, save: Save) -> None:
    """Time nanoGPT's step in turn with ours, at 124M and 10M."""
    if options["peer"] is None:
        save({"skipped": "no checkout of nanoGPT was given"})
        return
    names = ["d128 L4 T64"] if options["tiny"] else ["124M", "10M"]
    scratch = Path(options["out"]) / "scratch"
    scratch.mkdir(exist_ok=True)
    request = BenchRequest(
        parts=["r2"], checkout=Path(options["peer"]), n_rounds=3, scratch=scratch, shapes=names,
        budgets=None, save=save, deadline=time.monotonic() + 0.6 * options["limit_s"],
    )  # fmt: skip
    measure({}, request)


def evidence(options: Options, save: Save) -> None:
    """Store the sweep's status, its fit, and the paths of its table and figures."""
    directory = Path(options["out"]) / "results" / "gpu_check"
    status = json.loads(_sweep(options, "status", str(directory), "--json"))
    fitted = subprocess.run(
        _command("fit", str(directory / "points.csv")), capture_output=True, text=True, check=False
    )
    files = sorted(str(path.relative_to(directory)) for path in directory.iterdir() if path.is_file())
    figures = sorted(str(path.relative_to(directory)) for path in directory.glob("figures/*"))
    save({"status": status, "fit": fitted.stdout.splitlines()[-40:], "files": files + figures})


STEPS = {
    step.__name__: step
    for step in (environment, smoke, tests, steps, profile, packing, sweep, resume, peer, evidence)
}


class _Session:
    """A training session that stops at a step."""

    def __init__(self, checkpoint_dir: Path, stop_at: int | None = None) -> None:
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
        self.checkpoint_dir, self._stop_at, self._step = checkpoint_dir, stop_at, 0

    def should_stop(self) -> bool:
        return self._stop_at is not None and self._step >= self._stop_at

    def progress(self, step: int) -> None:
        self._step = step

    def log(self, record: Mapping[str, Any]) -> None:
        pass


def _experiment(options: Options) -> list[str]:
    """Return the overrides of the sweep: on a CPU one of the same form, a million times smaller."""
    out = Path(options["out"])
    places = [f"data_dir={out / 'data'}", f"results_dir={out / 'results'}"]
    if options["tiny"]:
        small = ["experiment=smoke", "budgets=[1e9,2e9]", "grid.d_model=[8,12,16,20]"]
        small += ["evaluation.n_tokens=8192", "name=gpu_check"]
        return [*small, f"trainer.device={options['device']}", *places]
    root = Path(torch.__file__).parent  # 40 MB of Python sources, without a network
    return ["experiment=gpu_check", f"data.roots=[{root}]", f"trainer.device={options['device']}", *places]


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", SWEEP, *arguments]


def _start_sweep(options: Options, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(_command(*arguments), env=_environment(options) | variables)


def _environment(options: Options) -> dict[str, str]:
    """Return the environment of a sweep; tiny ones take less time than measuring the speed for their plan."""
    return os.environ | ({MEASURE: "0"} if options["tiny"] else {})


def _sweep(options: Options, *arguments: str) -> str:
    out = Path(options["out"])
    places = [f"data_dir={out / 'data'}", f"results_dir={out / 'results'}"] if arguments[0] == "run" else []
    done = subprocess.run(
        _command(*arguments, *places),
        env=_environment(options),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _points(options: Options, name: str) -> list[str]:
    table = Path(options["out"]) / "results" / name / "points.csv"
    return table.read_text().splitlines() if table.exists() else []


def _kill_one_worker(run: subprocess.Popen[bytes], after_s: float) -> bool:
    """Kill a worker of a running sweep once it has run for `after_s`."""
    end = time.monotonic() + after_s
    while run.poll() is None:
        if time.monotonic() > end:
            children = psutil.Process(run.pid).children(recursive=True)
            workers = [child for child in children if "sweep.worker" in " ".join(child.cmdline())]
            if workers:
                workers[0].send_signal(signal.SIGKILL)
                return True
        time.sleep(0.2)
    return False


def _sweep_shape(options: Options) -> Shape:
    if options["tiny"]:
        return CPU_SHAPES[1]
    return replace(GPU_SHAPES[0], name="d128 L3", n_layers=3, seq_len=512, batch_size=32, vocab_size=4096)


def _device_us(row: Any, options: Options) -> float:
    return float(row.self_device_time_total if options["device"] == "cuda" else row.self_cpu_time_total)


def _head_seconds(options: Options, vocab_size: int) -> dict[str, float]:
    """Time the loss and gradient of one chunk of the head, eager and compiled."""
    n_rows = 64 if options["tiny"] else 8192
    dtype = torch.float32 if options["device"] == "cpu" else torch.bfloat16
    rows, weight = (torch.randn(n, 128, device=options["device"], dtype=dtype) for n in (n_rows, vocab_size))
    targets = torch.zeros(n_rows, dtype=torch.long, device=options["device"])
    found = {}
    # on a CPU the same graph without code generation, which takes half a minute there
    fused = torch.compile(fusible_chunk_loss, backend="aot_eager") if options["tiny"] else None
    with torch.no_grad():
        for name, chunk in (("eager", chunk_loss), ("compiled", fused or compiled(fusible_chunk_loss))):
            chunk(rows, weight, targets)
            found[name] = seconds(lambda chunk=chunk: chunk(rows, weight, targets), 20)
    return found


COMPILE = """
import sys
from pathlib import Path
from scripts.benchmarks.gpu_steps import _sweep_shape
from scripts.benchmarks.shapes import stepper
step = stepper(_sweep_shape({"tiny": sys.argv[2] == "1"}), "bf16", sys.argv[1], Path())
step(0)
print(step.compile_s)
"""


def _compile_seconds(options: Options) -> float:
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, options["device"], str(int(options["tiny"]))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def _stream_rate(shape: Shape, n_runs: int, device: str) -> float:
    """Return the steps per second of runs in threads of one process, each on a CUDA stream of its own."""
    n_steps = 5 if device == "cpu" else 200
    calls = [counted(stepper(shape, "bf16", device, Path())) for _ in range(n_runs)]
    for call in calls:
        seconds(call, 3)
    streams = [torch.cuda.Stream() if device == "cuda" else None for _ in calls]

    def work(call: Callable[[], None], stream: torch.cuda.Stream | None) -> None:
        with torch.cuda.stream(stream):  # None: the default
            for _ in range(n_steps):
                call()

    threads = [threading.Thread(target=work, args=pair) for pair in zip(calls, streams, strict=True)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if device == "cuda":
        torch.cuda.synchronize()
    return n_runs * n_steps / (time.perf_counter() - started)


def _stack_rate(shape: Shape, n_runs: int, device: str) -> float:
    """Return the steps per second, times the number of runs, of a stacked model in eager code."""
    step = counted(StackedStep(shape, n_runs, "bf16", device))
    seconds(step, 3)
    return n_runs / statistics.median(seconds(step, 5) for _ in range(3))


def main() -> None:
    """Run one step."""
    name, options = sys.argv[1], json.loads(sys.argv[2])
    file = Path(options["out"]) / f"{name}.json"

    def save(results: Mapping[str, Any]) -> None:
        file.write_text(json.dumps(results, indent=1, default=str) + "\n")

    file.unlink(missing_ok=True)
    STEPS[name](options, save)


if __name__ == "__main__":
    main()
