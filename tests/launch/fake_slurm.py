"""A fake SLURM of one machine in one file: sbatch, squeue, scancel and scontrol, as far as a sweep uses them.

`install(directory)` writes the four programs; each job of an array is a process group with a process that
supervises it, and its state is in a file next to the programs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TOOLS = ("sbatch", "squeue", "scancel", "scontrol")
STATE = Path(__file__).parent  # replaced by where `install` put this file's copy


def install(directory: Path) -> Path:
    """Write the programs and return their directory, to be put first on PATH."""
    directory.mkdir(parents=True)
    program = directory / "fake_slurm.py"
    program.write_text(Path(__file__).read_text())
    for tool in TOOLS:
        path = directory / tool
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -I {program} {tool} "$@"\n')
        path.chmod(0o755)
    return directory


def submissions(directory: Path) -> list[list[str]]:
    """Return the arguments of all calls of sbatch so far."""
    path = directory / "submitted.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sbatch(arguments: list[str]) -> int:
    options = dict(word[2:].partition("=")[::2] for word in arguments[:-1])
    with (STATE / "submitted.jsonl").open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    if options.get("partition") == "none":
        sys.stderr.write(
            "sbatch: error: invalid partition specified: none\nsbatch: error: Batch job failed\n"
        )
        return 1
    number = 1 + len(list(STATE.glob("job-*")))
    (STATE / f"job-{number}").touch()
    names = options["export"].split(",")
    environ = {name: os.environ[name] for name in names if name in os.environ}
    environ |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_JOB_NAME": options["job-name"]}
    if "time" in options:
        hours, minutes, seconds = map(int, options["time"].split(":"))
        environ["FAKE_LIMIT_S"] = str(3600 * hours + 60 * minutes + seconds)
    for task in range(int(options["array"].partition("-")[2]) + 1):
        own = {"SLURM_JOB_ID": f"{number}{task:03}", "SLURM_ARRAY_TASK_ID": str(task)}
        output = Path(options["chdir"]) / options["output"].replace("%A", str(number)).replace(
            "%a", str(task)
        )
        with output.open("ab") as file:
            subprocess.Popen(
                [sys.executable, "-I", __file__, "_job", f"{number}_{task}", arguments[-1]],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environ | own,
                cwd=options["chdir"],
                start_new_session=True,
            )
        while not (STATE / f"{number}_{task}.json").exists():
            time.sleep(0.005)
    print(number)
    return 0


def _job(arguments: list[str]) -> int:
    """Supervise one job of an array until it ends for good."""
    name, script = arguments
    record, again = STATE / f"{name}.json", STATE / f"{name}.requeue"
    n_restarts = 0
    while True:
        environ = os.environ | {"SLURM_RESTART_COUNT": str(n_restarts)}
        if "FAKE_LIMIT_S" in environ:
            environ["SLURM_JOB_END_TIME"] = str(int(time.time()) + int(environ["FAKE_LIMIT_S"]))
        job = subprocess.Popen(["sh", script], env=environ, start_new_session=True)
        temporary = record.with_suffix(".tmp")
        temporary.write_text(json.dumps({"name": environ["SLURM_JOB_NAME"], "pid": job.pid}))
        temporary.rename(record)
        job.wait()
        if not again.exists():
            record.unlink()
            return 0
        again.unlink()
        n_restarts += 1


def squeue(arguments: list[str]) -> int:
    name = next((word[7:] for word in arguments if word.startswith("--name=")), None)
    for path in sorted(STATE.glob("*_*.json")):
        if name is not None and json.loads(path.read_text())["name"] == name:
            print(f"{path.stem}|RUNNING|None")
    return 0


def scancel(arguments: list[str]) -> int:
    if "--state=PENDING" in arguments:
        return 0
    name = next(word[7:] for word in arguments if word.startswith("--name="))
    for path in STATE.glob("*_*.json"):
        record = json.loads(path.read_text())
        if record["name"] != name:
            continue
        if "--batch" in arguments:
            os.kill(record["pid"], signal.SIGTERM)
        else:
            _end(record["pid"])
    return 0


def scontrol(arguments: list[str]) -> int:
    verb, job = arguments
    assert verb == "requeue"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM answers before it ends the job
    (STATE / f"{job}.requeue").touch()
    os.killpg(json.loads((STATE / f"{job}.json").read_text())["pid"], signal.SIGTERM)
    return 0


def _end(pid: int) -> None:
    """SIGTERM to the whole group, and SIGKILL after a short KillWait."""
    os.killpg(pid, signal.SIGTERM)
    subprocess.Popen(["sh", "-c", f"sleep 5; kill -9 -{pid} 2>/dev/null"], start_new_session=True)


VERBS: dict[str, Callable[[list[str]], int]] = {
    "sbatch": sbatch,
    "squeue": squeue,
    "scancel": scancel,
    "scontrol": scontrol,
    "_job": _job,
}

if __name__ == "__main__":
    sys.exit(VERBS[sys.argv[1]](sys.argv[2:]))
