"""The number of workers on this machine, and their combined speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sweep.machine.bench import N_ROUNDS, SECONDS, Bench, measure_packing
from sweep.machine.devices import cores, devices, gpus
from sweep.machine.packing import Packing, PackingRow, best_packing, packing_file, packing_json, remembered
from sweep.plan.speed import makespan
from sweep.records import Plan
from sweep.store.files import write_atomic

PER_GPU = 2
"""Workers of a GPU on which packing was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerCount:
    """The number of workers of a sweep on this machine."""

    n_workers: int
    speed: float  # of all workers together, relative to one worker with a device of its own
    packing: Packing | None  # None: not measured, or n_workers was configured

    @property
    def shares_devices(self) -> bool:
        """True if several workers use one device, so that each is slower than one alone."""
        return self.packing is not None or self.n_workers > self.speed

    def wall_s(self, seconds: Sequence[float]) -> float:
        """Return the time until the workers have finished runs that take `seconds` on one worker alone."""
        if not self.shares_devices:
            return makespan(seconds, self.n_workers)
        return max(sum(seconds) / self.speed, max(seconds, default=0.0))


def count_workers(
    configured: int | None, device: str, packing: Packing | None = None, n_devices: int = 1
) -> WorkerCount:
    """Return the number of workers: the configured, else the measured one, else two per GPU or one per core.

    Two workers of a GPU take turns: one starts, compiles, scores or saves while the other trains, which does
    not count as speed. Each needs a core. `device` is auto, cpu or cuda. A worker with runs that are spread
    over `n_devices` takes that many GPUs or cores; neither `packing` nor sharing applies to it.
    """
    found = gpus() if device in ("auto", "cuda") else ()
    if configured is not None:
        n_alone = min(configured, max(1, len(found) // n_devices)) if found else configured
        return WorkerCount(n_workers=configured, speed=float(n_alone), packing=None)
    if packing is not None and n_devices == 1:
        n_shared = max(1, len(found))
        n_workers, speed = packing.n_workers * n_shared, packing.speedup * n_shared
        return WorkerCount(n_workers=n_workers, speed=speed, packing=packing)
    n_alone = max(1, (len(found) or len(cores())) // n_devices)
    n_workers = n_alone
    if found and n_devices == 1:
        n_workers = max(n_alone, min(PER_GPU * n_alone, len(cores())))
    return WorkerCount(n_workers=n_workers, speed=float(n_alone), packing=None)


def worker_count(plans: Sequence[Plan]) -> WorkerCount:
    """Return the number of workers that `run` would start on this machine for the arms of a sweep."""
    experiment = plans[0].experiment
    trainer = experiment.trainer
    packing = measured_packing(plans) if trainer.n_devices == 1 else None
    return count_workers(experiment.launch.n_workers, trainer.device, packing, trainer.n_devices)


def measured_packing(plans: Sequence[Plan]) -> Packing | None:
    """Return the best number of workers per device as measured on this machine; None if not measured.

    With `launch.mps` set, only measurements with or without the service count.
    """
    experiment = plans[0].experiment
    rows = remembered(devices(experiment.trainer.device)[0].name)
    wanted = getattr(experiment.launch, "mps", None)
    if wanted is not None:
        rows = tuple(row for row in rows if row.mps == wanted or row.n_workers == 1)
    work = [(run.n_params, run.time_s) for plan in plans for run in plan.runs]
    return best_packing(rows, work) if rows else None


def measure_and_remember(
    plans: Sequence[Plan],
    on_row: Callable[[PackingRow], None] = lambda row: None,
    *,
    seconds: float = SECONDS,
    n_rounds: int = N_ROUNDS,
) -> Packing:
    """Measure the best number of workers per device for the model sizes of `plans`, and store it.

    Takes a minute or two for each of three sizes, on a GPU twice if MPS is available. Raises InputError if a
    process cannot train, or the file of measurements is damaged.
    """
    trainer = plans[0].experiment.trainer
    device = devices(trainer.device)[0]
    remembered(device.name)  # raises for a damaged file before minutes are spent
    bench = Bench(
        device=device,
        cores=cores(),
        micro_batch_size=trainer.micro_batch_size,
        seconds=seconds,
        n_rounds=n_rounds,
    )
    rows = measure_packing([run for plan in plans for run in plan.runs], bench, on_row)
    packing_file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(packing_file(), packing_json(device.name, rows))
    packing = measured_packing(plans)
    assert packing is not None
    return packing
