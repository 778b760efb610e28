"""Launchers of workers: one class for each, with the fields they share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from sweep.config.values import STRICT, Count, Flag, Float, Int, NonNegative, Positive

OWN_OPTIONS = frozenset(
    "account array chdir constraint cpus-per-task error export export-file get-user-env gres input job-name "
    "mem nodes no-requeue ntasks open-mode output parsable partition quiet requeue signal time wait "
    "wrap".split()
)
"""Options of sbatch that launch.options may not hold: sweep sets them, or they are keys of launch."""


def _printable(text: str) -> str:
    if not text.isprintable() or not 0 < len(text) <= 500:
        raise ValueError("give a text of 1 to 500 printable characters")
    return text


def _time_limit(value: object) -> object:
    # YAML reads an unquoted 1:30:00 as the number 5400, which SLURM would read as minutes.
    if not isinstance(value, str) or not re.fullmatch(
        r"([0-9]{1,3}-)?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]", value
    ):
        raise ValueError("give [days-]hours:minutes:seconds, in quotes where it stands in a YAML file")
    return value


def _sbatch_options(options: Mapping[str, str | int | bool]) -> Mapping[str, str | int | bool]:
    for name in options:
        if not re.fullmatch(r"[a-z][a-z-]{1,40}", name):
            raise ValueError(f"{name!r} is not a long option of sbatch: write qos for --qos")
        if any(own.startswith(name) for own in OWN_OPTIONS):  # sbatch accepts abbreviated names
            raise ValueError(f"{name} is not allowed in options: it is a key of launch, or sweep sets it")
    return options


def _variable_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("give the name of an environment variable alone, its value is that of this shell")
    return text


SbatchValue = Annotated[str, AfterValidator(_printable)]
TimeLimit = Annotated[str, BeforeValidator(_time_limit)]
Workers = Annotated[Int, Field(gt=0, le=10_000)]  # each is a process; more is a typing error
VariableName = Annotated[str, AfterValidator(_variable_name)]
SbatchOptions = Annotated[Mapping[str, Flag | Int | SbatchValue], AfterValidator(_sbatch_options)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Launch:
    """Limits on silent and failing workers, the same for every launcher."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    lease_s: Annotated[Float, Field(ge=1)] = 120.0
    """A heartbeat unchanged for this long has expired; above the attribute caching of NFS (60 s). Unit:
    seconds."""
    stall_s: Annotated[Float, Field(ge=1)] = 900.0
    """A run without a step for this long stops its heartbeat. Unit: seconds."""
    max_failures: Count = 3
    """Failed attempts after which a run is given up. Unit: attempts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalLaunch(_Launch):
    """Supervised processes on this machine."""

    name: Literal["local"]
    """The launcher."""
    n_workers: Workers | None = None
    """Workers; null: as measured, else two per GPU if there are cores, or one per core. Unit: workers."""
    mps: Flag | None = None
    """Workers of a GPU share it through NVIDIA's Multi-Process Service; null: where measured to be faster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmLaunch(_Launch):
    """An array of SLURM jobs, each with one worker. null leaves an option of sbatch to the cluster."""

    name: Literal["slurm"]
    """The launcher."""
    n_workers: Workers = 4
    """Jobs in the array; each requeues itself while the sweep has work. Unit: workers."""
    partition: SbatchValue | None = None
    """Partition."""
    account: SbatchValue | None = None
    """Account that pays."""
    gres: SbatchValue | None = None
    """Generic resources of one worker, such as gpu:1."""
    time: TimeLimit | None = None
    """Time limit of one job, [days-]hours:minutes:seconds in quotes; the job requeues itself before."""
    constraint: SbatchValue | None = None
    """Node features."""
    cpus_per_worker: Count = 1
    """CPUs of one worker. Unit: CPUs."""
    mem: Count | SbatchValue | None = None
    """Memory of one worker, such as 16G. Unit: MiB for a plain number."""
    options: SbatchOptions | None = None
    """Other options of sbatch by their long names, as {qos: high, exclusive: true}. Unit: as in sbatch."""
    export: tuple[VariableName, ...] = ()
    """Environment variables that workers need in addition to PATH and similar ones, as [WANDB_API_KEY]."""
    signal_s: Count = 120
    """Time before the end of a job at which its worker saves and leaves. Unit: seconds."""
    min_claim_s: NonNegative = 60.0
    """A worker starts no run with less time than this before the signal. Unit: seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RayLaunch(_Launch):
    """Tasks of a Ray cluster, each with one worker."""

    name: Literal["ray"]
    """The launcher."""
    n_workers: Workers = 2
    """Tasks. Unit: workers."""
    address: SbatchValue | None = None
    """Address of a running cluster, as host:6379 or auto; null: start one on this machine."""
    cpus_per_worker: Count = 1
    """CPUs of one worker. Unit: CPUs."""
    gpus_per_worker: NonNegative = 0.0
    """GPUs of one worker, possibly a fraction. Unit: GPUs."""
    resources: Mapping[str, Positive] | None = None
    """Custom resources of one worker, as {a100: 1}. Unit: as defined by the cluster."""
    allow_insecure: Flag = False
    """Use a running cluster that has no token authentication."""


LaunchConfig = Annotated[LocalLaunch | SlurmLaunch | RayLaunch, Field(discriminator="name")]
"""The launcher of the workers."""
