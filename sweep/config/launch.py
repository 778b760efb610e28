"""Where the workers run: one class for each launcher, and what all of them share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints

from sweep.config.values import STRICT, Count, NonNegative, Positive

OWN_OPTIONS = frozenset(
    "account array chdir constraint cpus-per-task error export export-file get-user-env gres input job-name "
    "mem nodes no-requeue ntasks open-mode output parsable partition quiet requeue signal time wait "
    "wrap".split()
)
"""Options of sbatch that launch.options may not hold: they are our own, or keys of launch."""


def _printable(text: str) -> str:
    if not text.isprintable() or not 0 < len(text) <= 500:
        raise ValueError("give a text of 1 to 500 printable characters")
    return text


def _time_limit(value: object) -> object:
    # YAML reads an unquoted 1:30:00 as the number 5400, which SLURM would take for minutes.
    if not isinstance(value, str) or not re.fullmatch(
        r"([0-9]{1,3}-)?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]", value
    ):
        raise ValueError("give [days-]hours:minutes:seconds, in quotes where it stands in a YAML file")
    return value


def _sbatch_options(options: Mapping[str, str | int | bool]) -> Mapping[str, str | int | bool]:
    for name in options:
        if not re.fullmatch(r"[a-z][a-z-]{1,40}", name):
            raise ValueError(f"{name!r} is no long option of sbatch: write qos for --qos")
        if any(own.startswith(name) for own in OWN_OPTIONS):  # sbatch takes a shortened name too
            raise ValueError(f"{name} is not for options: it is a key of launch, or set by sweep")
    return options


SbatchValue = Annotated[str, AfterValidator(_printable)]
TimeLimit = Annotated[str, BeforeValidator(_time_limit)]
Workers = Annotated[int, Field(gt=0, le=10_000)]  # more is a slip of the hand, and each is a process
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
SbatchOptions = Annotated[Mapping[str, bool | int | SbatchValue], AfterValidator(_sbatch_options)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Launch:
    """How long a silent or stuck worker is believed, wherever it runs."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    lease_s: Annotated[float, Field(ge=1)]  # a heartbeat unchanged this long has expired
    stall_s: Annotated[float, Field(ge=1)]  # no step for this long: the heartbeat stops
    max_failures: Count  # attempts ending in failed:code or failed:host before a run is given up


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalLaunch(_Launch):
    """Supervised processes on this machine."""

    name: Literal["local"]
    n_workers: Workers | None  # null: one per GPU, or one per CPU core


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmLaunch(_Launch):
    """An array of SLURM jobs, a worker in each; null leaves an option of sbatch to the cluster."""

    name: Literal["slurm"]
    n_workers: Workers  # jobs in the array
    partition: SbatchValue | None = None
    account: SbatchValue | None = None
    gres: SbatchValue | None = None  # of one worker, such as gpu:1
    time: TimeLimit | None = None  # of one job, [days-]hours:minutes:seconds; it requeues itself before
    constraint: SbatchValue | None = None
    cpus_per_worker: Count = 1
    mem: Count | SbatchValue | None = None  # of one worker, such as 16G, or in MiB
    options: SbatchOptions | None = None  # others by their long names, as {qos: high, exclusive: true}
    export: tuple[VariableName, ...] = ()  # variables the workers need besides PATH and its like
    signal_s: Count = 120  # before a job's end its worker is told to save and leave
    min_claim_s: NonNegative = 60  # with less time than this before the signal no run is begun


@dataclass(frozen=True, kw_only=True, slots=True)
class RayLaunch(_Launch):
    """Tasks of a Ray cluster, a worker in each."""

    name: Literal["ray"]
    n_workers: Workers
    address: SbatchValue | None = None  # of a running cluster, as host:6379; null: one of our own, here
    cpus_per_worker: Count = 1
    gpus_per_worker: NonNegative = 0
    resources: Mapping[str, Positive] | None = None  # custom ones of a worker, as {a100: 1}
    allow_insecure: bool = False  # use a running cluster that asks nobody for a token


LaunchConfig = Annotated[LocalLaunch | SlurmLaunch | RayLaunch, Field(discriminator="name")]
"""Where the workers run."""
