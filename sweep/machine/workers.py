"""How many workers a sweep gets on this machine, and how fast they are together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sweep.machine.bench import N_ROUNDS, SECONDS, Bench, measure_packing
from sweep.machine.devices import cores, devices, n_places
from sweep.machine.packing import Packing, Throughput, best_packing, packing_file, packing_json, remembered
from sweep.records import Plan
from sweep.store.files import replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """The workers of a sweep on this machine."""

    n_workers: int
    speed: float  # of all together, in units of one worker that has a device to itself
    packing: Packing | None  # None: not measured, or `launch.n_workers` says how many


def crew(plans: Sequence[Plan]) -> Crew:
    """The workers that `run` would start on this machine for the arms of a sweep."""
    experiment = plans[0].experiment
    chosen = packing(plans) if experiment.trainer.n_devices == 1 else None
    device = experiment.trainer.device
    n_workers = n_places(experiment.launch.n_workers, device, chosen, experiment.trainer.n_devices)
    if experiment.launch.n_workers is not None or chosen is None:
        return Crew(n_workers=n_workers, speed=float(n_workers), packing=None)
    return Crew(n_workers=n_workers, speed=len(devices(device)) * chosen.speedup, packing=chosen)


def packing(plans: Sequence[Plan]) -> Packing | None:
    """How many workers share a device, by what was measured on this machine; None when nothing was."""
    rows = remembered(devices(plans[0].experiment.trainer.device)[0].name)
    work = [(run.n_params, run.time_s) for drawn in plans for run in drawn.runs]
    return best_packing(rows, work) if rows else None


def measure_and_remember(
    plans: Sequence[Plan],
    on_row: Callable[[Throughput], None] = lambda row: None,
    *,
    seconds: float = SECONDS,
    n_rounds: int = N_ROUNDS,
) -> Packing:
    """Measure how many workers share a device best with the sizes of `plans`, and remember it.

    Takes about half a minute for each size and number of workers. Raises InputError when a process cannot
    train, or the file of measurements is damaged.
    """
    trainer = plans[0].experiment.trainer
    device = devices(trainer.device)[0]
    remembered(device.name)  # a file that is damaged is told before minutes are spent
    bench = Bench(
        device=device,
        cores=cores(),
        micro_batch_size=trainer.micro_batch_size,
        seconds=seconds,
        n_rounds=n_rounds,
    )
    rows = measure_packing([run for drawn in plans for run in drawn.runs], bench, on_row)
    packing_file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace(packing_file(), packing_json(device.name, rows))
    chosen = packing(plans)
    assert chosen is not None
    return chosen
