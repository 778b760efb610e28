"""The device a plan is made for, limits on the devices of one run, and the choice between ddp and fsdp."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sweep.config import ExperimentConfig, RunConfig
from sweep.errors import InputError
from sweep.plan.estimate import USABLE_FRAC, memory

Parallel = Literal["auto", "ddp", "fsdp"]
DeviceType = Literal["cpu", "cuda"]


def planned_device(experiment: ExperimentConfig, *, has_gpu: bool) -> DeviceType:
    """Return the type of device that the workers of an experiment will use.

    With trainer.device=auto, local workers use the GPU of this machine if `has_gpu`; those of SLURM and Ray
    use one if a worker asks for it.
    """
    launch = experiment.launch
    if experiment.trainer.device != "auto":
        return experiment.trainer.device
    if launch.name == "slurm":
        has_gpu = "gpu" in (launch.gres or "") or any("gpu" in name for name in launch.options or {})
    elif launch.name == "ray":
        has_gpu = launch.gpus_per_worker > 0
    return "cuda" if has_gpu else "cpu"


def with_precision(experiment: ExperimentConfig, device: DeviceType) -> ExperimentConfig:
    """Return the experiment with precision=auto resolved: bf16 on a GPU, fp32 on a CPU."""
    if experiment.precision != "auto":
        return experiment
    return replace(experiment, precision="bf16" if device == "cuda" else "fp32")


def check_devices(run: RunConfig, n_devices: int, parallel: Parallel) -> None:
    """Refuse a number of devices or a mode that `run` cannot use.

    Raises:
        InputError: There are more devices than sequences in a batch, or fsdp has unequal shares or Muon.
    """
    if n_devices > run.batch_size:
        raise InputError(
            f"trainer.n_devices={n_devices} is more than the {run.batch_size} sequences in a batch of "
            f"{run.name}: choose at most {run.batch_size}, or raise batch_tokens"
        )
    if parallel == "fsdp" and run.optimizer.name == "muon":
        raise InputError(
            f"trainer.parallel=fsdp spreads each matrix over devices, and optimizer.name=muon of {run.name} "
            f"needs it whole: choose parallel=ddp, or optimizer=adamw"
        )
    if parallel == "fsdp" and run.batch_size % n_devices:
        raise InputError(
            f"trainer.parallel=fsdp needs equal shares, and the {run.batch_size} sequences in a batch of "
            f"{run.name} do not divide by trainer.n_devices={n_devices}: choose a divisor, or parallel=ddp"
        )


def is_sharded(run: RunConfig, n_devices: int, parallel: Parallel, device_bytes: int, device: str) -> bool:
    """Return whether weights are spread over the devices: on request, or when one cannot hold the run.

    A device needs room for the weights and one sequence. Under `auto`, runs with unequal shares or with Muon
    keep whole weights on every device.
    """
    if parallel != "auto":
        return parallel == "fsdp"
    needed = memory(run, 1, device=device).rise
    spreadable = run.batch_size % n_devices == 0 and run.optimizer.name != "muon"
    return needed > USABLE_FRAC * device_bytes and spreadable
