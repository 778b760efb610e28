"""sweep doctor on this machine, and on simulated machines with missing requirements."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.config.compose import compose_experiment
from sweep.errors import SafetyError
from sweep.machine import torch_probe
from sweep.machine.doctor import Check, Diagnosis, Needs, devices, examine, machine, packages
from sweep.machine.doctor.devices import check_compiler, check_torch, wanted_devices
from sweep.machine.doctor.packages import check_extras, extras_of
from sweep.machine.torch_probe import installed_gpus, probe_torch
from sweep.study.plan import diagnose


@pytest.fixture
def needs(tmp_path: Path) -> Needs:
    return Needs(
        results_dir=tmp_path / "not" / "yet" / "there",
        data_dir=tmp_path,
        device="auto",
        precision="fp32",
        packages=("torch", "safetensors"),
        memory_bytes=10**8,
        refusal=None,
    )


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated probe of torch on a machine without a GPU, since a real one takes seconds."""
    monkeypatch.setattr("sweep.machine.doctor.probe_torch", lambda: CPU_ONLY)


WORKS = {"fp32": True, "bf16": True}
CPU = {"name": "CPU", "memory_bytes": None, "dtypes": WORKS}
CPU_ONLY: dict[str, Any] = {
    "version": "2.13.0+cpu",
    "cuda": None,
    "no_gpu_because": "this torch is built for the CPU",
    "devices": {"cpu": CPU},
}
ONE_GPU: dict[str, Any] = {
    "version": "2.13.0",
    "cuda": "13.0",
    "no_gpu_because": None,
    "devices": {"cpu": CPU, "cuda:0": {"name": "H200", "memory_bytes": 150 * 2**30, "dtypes": WORKS}},
}


WITH_COMPILER = Check(name="compiler", state="ok", found="gcc")


def missing(diagnosis: Diagnosis) -> list[str]:
    return [check.name for check in diagnosis.checks if check.state == "missing"]


def test_this_machine_can_run_the_tests(needs: Needs, tmp_path: Path) -> None:
    diagnosis = examine(needs, 2)
    assert diagnosis.ok
    assert missing(diagnosis) == []
    assert not any(tmp_path.iterdir())  # no file is left, not even results_dir
    named = {check.name for check in diagnosis.checks}
    assert {"python", "cores", "memory", "results_dir", "data_dir", "hard links", "torch", "cpu"} <= named
    assert diagnosis.to_json()["ok"] is True
    assert diagnosis.to_text().endswith("the experiment can run here")


def test_the_real_probe_of_torch() -> None:
    found = probe_torch()
    assert found["version"] == metadata.version("torch")
    assert found["devices"]["cpu"]["dtypes"]["fp32"] is True


@pytest.mark.ci
def test_the_verb_exits_with_its_verdict_and_loads_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from sweep.cli.app import main\n"
        "sys.argv = ['sweep', *sys.argv[1:]]\n"
        "try: main()\n"
        "finally: assert not {'torch', 'datasets', 'tokenizers'} & set(sys.modules)\n"
    )

    def run(*overrides: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", script, "doctor", "--json", f"data_dir={tmp_path}", *overrides]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)

    good = run("experiment=smoke")
    assert (good.returncode, good.stderr) == (0, "")
    document = json.loads(good.stdout)
    assert document["ok"] is True
    assert {tuple(check) for check in document["checks"]} == {("name", "state", "found", "remedy")}
    bad = run("experiment=smoke", "data=text", "data.files=gone.txt")
    assert bad.returncode == 1
    (check,) = (one for one in json.loads(bad.stdout)["checks"] if one["state"] == "missing")
    assert "data.files=gone.txt matches no file" in check["found"]


def test_an_experiment_says_what_it_needs(tmp_path: Path) -> None:
    def names(*overrides: str) -> list[str]:
        experiment = compose_experiment([f"data_dir={tmp_path}", "experiment=smoke", *overrides])
        return [check.name for check in diagnose(experiment).checks]

    assert "tokenizers" not in names()
    assert "tokenizers" in names("tokenizer=bpe")
    hub = ("data=huggingface", "data.dataset=me/tales", f"data.revision={'a' * 40}")
    assert "datasets" in names(*hub)


# --- missing requirements -----------------------------------------------------------------------------


def test_too_little_memory_and_disk(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * 10**8))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    assert missing(examine(replace(needs, memory_bytes=10**9), 2)) == ["memory", "results_dir", "data_dir"]
    monkeypatch.setattr("sweep.machine.doctor.probe_torch", lambda: ONE_GPU)
    assert "memory" not in missing(examine(replace(needs, memory_bytes=10**9), 2))  # of the GPU


def test_a_container_may_use_less_than_its_host_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_container_limit_bytes", lambda: 1e6)
    assert machine.check_memory(10**7).state == "missing"


def test_a_file_system_without_hard_links(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(directory: Path) -> None:
        raise SafetyError(f"{directory} is on a file system without hard links")

    monkeypatch.setattr(machine, "check_filesystem", refuse)
    assert missing(examine(needs, 2)) == ["hard links"]


def test_a_directory_that_cannot_be_written(
    needs: Needs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    diagnosis = examine(needs, 2)
    assert missing(diagnosis) == ["results_dir", "data_dir", "hard links"]
    assert f"{tmp_path} is not writable (Permission denied)" in diagnosis.to_text()


def test_packages_that_are_not_installed(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version

    def without(name: str) -> str:
        if name in ("torch", "datasets", "wandb"):
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(packages.metadata, "version", without)
    requirements = (
        "numpy",
        "torch>=2.11; extra == 'train'",
        "datasets>=4 ; extra == 'train'",
        "wandb<1; extra == 'wandb'",
        "pytest; extra == 'dev'",
        "safetensors; extra == 'io'",
    )
    monkeypatch.setattr(packages.metadata, "requires", lambda name: list(requirements))
    diagnosis = examine(needs, 2)
    assert missing(diagnosis) == ["torch"]
    assert not diagnosis.ok
    found = {check.name: (check.state, check.found, check.remedy) for check in diagnosis.checks}
    assert found["torch"] == ("missing", "not installed", "pip install 'sweep[train]'")
    assert found["extra train"] == ("absent", "not installed: torch, datasets", "pip install 'sweep[train]'")
    assert found["extra wandb"] == ("absent", "not installed: wandb", "pip install 'sweep[wandb]'")
    assert found["extra io"] == ("ok", "safetensors", None)
    assert "extra dev" not in found
    assert diagnosis.to_text().endswith("the experiment cannot run here: see the missing items above")


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "requires", unknown)
    assert [check.remedy for check in check_extras()] == ["pip install -e ."]


def test_extras_are_read_whatever_the_spelling() -> None:
    assert extras_of(['ray[default]>=2 ; python_version < "3.14" and extra == "ray"', "x"]) == {
        "ray": ["ray"]
    }


# --- devices -----------------------------------------------------------------------------------------


def test_which_devices_workers_would_use() -> None:
    assert wanted_devices("auto", CPU_ONLY) == wanted_devices("cpu", ONE_GPU) == {"cpu"}
    assert wanted_devices("auto", ONE_GPU) == wanted_devices("cuda", ONE_GPU) == {"cuda:0"}
    assert wanted_devices("auto", None) == wanted_devices("auto", {"error": "x"}) == {"cpu"}


def test_a_gpu_that_torch_cannot_use(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "installed_gpus", lambda: ["NVIDIA H200"])
    (cpu, gpu) = check_torch(CPU_ONLY, needs)
    assert (cpu.state, gpu.state) == ("ok", "absent")  # the CPU is sufficient
    assert gpu.found == "NVIDIA H200; torch 2.13.0+cpu cannot use a GPU: this torch is built for the CPU"
    (_, gpu) = check_torch(CPU_ONLY, replace(needs, device="cuda"))
    assert gpu.state == "missing"
    monkeypatch.setattr(devices, "installed_gpus", list)
    assert [check.name for check in check_torch(CPU_ONLY, needs)] == ["cpu"]
    assert [check.state for check in check_torch(CPU_ONLY, replace(needs, device="cuda"))] == [
        "ok",
        "missing",
    ]


def test_a_gpu_that_torch_can_use(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "check_compiler", lambda: WITH_COMPILER)
    monkeypatch.setattr(devices.shutil, "which", lambda name: name)
    assert [check.state for check in check_torch(ONE_GPU, needs)] == ["ok", "ok", "ok"]
    large = check_torch(ONE_GPU, replace(needs, memory_bytes=200 * 2**30))
    assert [check.state for check in large] == ["ok", "missing", "ok"]
    old = {"name": "V100", "memory_bytes": 16 * 2**30, "dtypes": {"fp32": True, "bf16": False}}
    without_bf16 = {**ONE_GPU, "devices": {"cpu": CPU, "cuda:0": old}}
    (cpu, gpu, _) = check_torch(without_bf16, replace(needs, precision="bf16"))
    assert (cpu.state, gpu.state, gpu.found) == ("ok", "missing", "V100, 16 GiB, supports fp32")
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    assert [check.name for check in check_torch(ONE_GPU, needs)][-1] == "nvidia-smi"


def test_the_compiler_and_the_headers_that_triton_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    lacking = check_compiler()
    assert lacking.state == "absent"  # runs train without compilation
    assert "no C compiler (gcc, clang, cc) and" in lacking.found
    assert "Python.h not found" in lacking.found
    for name in ("clang", "Python.h"):
        (tmp_path / name).touch(mode=0o755)
    assert check_compiler().state == "ok"
    monkeypatch.setenv("CC", "elsewhere")
    assert "no C compiler (elsewhere)" in check_compiler().found


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "raise ImportError('libcudart.so.13 is not there')",
            "does not import: ImportError: libcudart.so.13",
        ),
        ("import os; os._exit(7)", "does not import: exit code 7"),
        ("import time; time.sleep(60)", "does not import within 1 s"),
    ],
)
def test_a_torch_that_does_not_import(
    needs: Needs, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setattr(torch_probe, "TORCH_PROBE", script)
    monkeypatch.setattr(torch_probe, "PROBE_TIMEOUT_S", 1.0)
    (check,) = check_torch(probe_torch(), needs)
    assert check.state == "missing"
    assert reason in check.found


def test_gpus_are_those_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200'\necho 'NVIDIA L4'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert installed_gpus() == ["NVIDIA H200", "NVIDIA L4"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert installed_gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert installed_gpus() == []


def test_a_launcher_that_cannot_work_here_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    settings = ["experiment=smoke", f"results_dir={tmp_path}", f"data_dir={tmp_path}"]
    slurm = diagnose(compose_experiment([*settings, "launch=slurm"]))
    assert "launch" in missing(slurm)
    assert "launch=slurm needs sbatch" in slurm.to_text()
    local = diagnose(compose_experiment(settings))
    assert "launch" not in [check.name for check in local.checks]


@pytest.mark.parametrize(
    ("settings", "variable", "remedy"),
    [
        ((), "0", "optional; unset SWEEP_MEASURE_SPEED, or set estimate.flops_per_second"),
        (("launch=slurm",), "1", "optional; set estimate.flops_per_second"),
    ],
)
def test_the_remedy_for_an_unknown_speed_is_one_that_works(
    settings: tuple[str, ...],
    variable: str,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SWEEP_MEASURE_SPEED", variable)
    experiment = compose_experiment(["experiment=smoke", "tokenizer=byte", f"data_dir={tmp_path}", *settings])
    check = diagnose(experiment).checks[-1]
    assert check.name == "speed"
    assert check.remedy is not None
    assert check.remedy.startswith(remedy)
