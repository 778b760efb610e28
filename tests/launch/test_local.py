"""Local launcher with real processes: restarts, poisonous runs, two supervisors, orphans, placement."""

import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from sweep.config import LocalLaunch
from sweep.errors import InputError
from sweep.launch import local
from sweep.launch.base import worker_command
from sweep.launch.choose import check_launch
from sweep.launch.local import LocalLauncher
from sweep.machine import devices
from sweep.machine.packing import Packing
from sweep.store.attempts.attempts import read_attempts
from tests.faults.processes import start, wait_until
from tests.toy_trainer import toy_sweep

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("TOY_STEP_S", "0.002")


def launcher(store, **changes):
    launch = store.entries()[0].experiment.launch
    values = {"device": "cpu", "command": command(store.sweep_dir)}
    return LocalLauncher(store.sweep_dir, launch, **(values | changes))


def command(sweep_dir):
    return [sys.executable, "-m", "tests.toy_trainer", str(sweep_dir)]


def run_to_end(launcher, timeout_s=60.0):
    launcher.start()
    try:
        state = launcher.wait(timeout_s)
        assert state.n_running == 0
        return state
    finally:
        launcher.kill()
        launcher.wait(5)


def states(store, name):
    key = next(entry.run_key for entry in store.entries() if entry.name == name)
    return [attempt.state for attempt in read_attempts(store.sweep_dir / "runs" / key)]


@pytest.mark.ci
@pytest.mark.parametrize("fault", ["segfault", "leak"])
def test_a_poisonous_run_fails_within_its_retries_and_the_rest_finishes(tmp_path, monkeypatch, fault):
    monkeypatch.setenv("TOY_FAULT", f"{fault}:run-1")
    store = toy_sweep(tmp_path, 4, n_workers=2, max_failures=2)
    assert run_to_end(launcher(store)).gave_up is None
    assert store.status().counts == {"done": 3, "failed:host": 1}
    assert states(store, "run-1") == ["failed:host", "failed:host"]
    assert "killed by SIG" in next(run.reason for run in store.status().runs if run.name == "run-1")


@pytest.mark.ci
def test_a_hanging_run_fails_and_its_worker_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAULT", "hang:run-2")
    store = toy_sweep(tmp_path, 3, n_workers=1, max_failures=1, lease_s=1, stall_s=1)
    state = run_to_end(launcher(store))
    assert (state.n_restarts, state.gave_up) == (1, None)
    assert store.status().counts == {"done": 2, "failed:host": 1}
    assert "no step for" in next(run.reason for run in store.status().runs if run.name == "run-2")


def _supervise(sweep_dir, cwd):
    os.chdir(cwd)
    from sweep.store.run_store import RunStore

    run_to_end(launcher(RunStore(sweep_dir)))
    os._exit(0)


def test_two_supervisors_share_one_sweep_and_both_end_well(tmp_path, monkeypatch):
    store = toy_sweep(tmp_path, 10, n_workers=1)
    supervisors = [start(_supervise, tmp_path, REPOSITORY) for _ in range(2)]
    for supervisor in supervisors:
        supervisor.join(60)
        assert supervisor.exitcode == 0
    assert store.status().counts == {"done": 10}
    assert {tuple(states(store, f"run-{i}")) for i in range(10)} == {("done",)}
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_workers_leave_when_their_supervisor_is_killed(tmp_path):
    store = toy_sweep(tmp_path, 1, n_steps=100_000, n_workers=1)
    supervisor = start(_supervise, tmp_path, REPOSITORY)
    wait_until(lambda: store.status().counts.get("running", 0) == 1)
    workers = psutil.Process(supervisor.pid).children(recursive=True)
    supervisor.kill()
    supervisor.join()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    shown = store.status().runs[0]
    assert (shown.status, shown.reason) == ("preempted", "the supervisor is gone")


def test_a_command_that_always_dies_is_not_restarted_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "MAX_BACKOFF_S", 0.01)
    store = toy_sweep(tmp_path, 1, n_workers=1)
    state = run_to_end(launcher(store, command=["sh", "-c", "exit 9"]))
    assert state.n_restarts == local.MAX_DEATHS
    assert "exited with code 9" in state.gave_up
    assert str(tmp_path / "logs") in state.gave_up


def test_a_worker_that_refuses_is_not_restarted(tmp_path):
    store = toy_sweep(tmp_path, 1, n_workers=1)
    state = run_to_end(launcher(store, command=["sh", "-c", "exit 2"]))
    assert state.n_restarts == 0
    assert "refused" in state.gave_up


SHOW = "import os, json; print(json.dumps([dict(os.environ), sorted(os.sched_getaffinity(0))])); exit(2)"


def shown_environments(store, **changes):
    import json

    supervisor = launcher(
        store, command=[sys.executable, "-c", "import time; time.sleep(.2); " + SHOW], **changes
    )
    run_to_end(supervisor)
    logs = sorted((store.sweep_dir / "logs").iterdir())
    return [json.loads(log.read_text()) for log in logs]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be pinned here")
def test_one_single_thread_worker_is_pinned_to_each_core(tmp_path):
    store = toy_sweep(tmp_path, 1, n_workers=None)
    shown = shown_environments(store)
    assert [affinity for _, affinity in shown] == [[core] for core in devices.cores()]
    for environment, _ in shown:
        assert environment["OMP_NUM_THREADS"] == environment["SWEEP_N_THREADS"] == "1"
        assert (environment["SWEEP_DEVICE"], environment["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")


MEMORY_BYTES = 81559 * 2**20


@pytest.fixture
def three_gpus(monkeypatch):
    """A machine without nvidia-smi on which torch finds three GPUs, as CUDA_VISIBLE_DEVICES selects them."""

    def probe():
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2").split(",")
        gpu = {"name": "Some GPU", "memory_bytes": MEMORY_BYTES}
        found = {f"cuda:{at}": gpu | {"uuid": name[-1]} for at, name in enumerate(chosen)}
        return {"devices": {"cpu": {}} | found, "no_gpu_because": None}

    monkeypatch.setattr(devices, "probe_torch", probe)
    monkeypatch.setattr(devices, "GPU_FILE", Path("/"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices._probe.cache_clear()
    yield
    devices._probe.cache_clear()


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(("n_cores", "n_each"), [(1, 1), (3, 1), (6, 2), (64, 2)])
def test_two_workers_go_to_each_gpu_if_there_are_cores_for_them(tmp_path, monkeypatch, n_cores, n_each):
    monkeypatch.setattr("sweep.machine.workers.cores", lambda: tuple(range(n_cores)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = toy_sweep(tmp_path / "sweep", 1, n_workers=None)
    shown = shown_environments(store, device="auto")
    gpus = [environment["CUDA_VISIBLE_DEVICES"] for environment, _ in shown]
    assert gpus == ["GPU-0", "GPU-1", "GPU-2"] * n_each
    shares_memory = ["SWEEP_ADMISSION_BYTES" in environment for environment, _ in shown]
    assert shares_memory == [n_each > 1] * len(shown)
    assert {environment["SWEEP_DEVICE"] for environment, _ in shown} == {"cuda:0"}


@pytest.mark.usefixtures("three_gpus")
def test_measured_packing_puts_several_workers_on_a_gpu_and_tells_them_of_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(local, "mps_daemon", lambda visible: nullcontext({"MPS": f"of {visible}"}))
    store = toy_sweep(tmp_path / "sweep", 1, n_workers=None)
    packing = Packing(n_workers=2, mps=True, speedup=1.5)
    shown = [environment for environment, _ in shown_environments(store, device="auto", packing=packing)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in shown] == ["GPU-0", "GPU-1", "GPU-2"] * 2
    assert [environment["MPS"] for environment in shown] == ["of GPU-0", "of GPU-1", "of GPU-2"] * 2
    assert {environment["SWEEP_ADMISSION_BYTES"] for environment in shown} == {str(int(0.92 * MEMORY_BYTES))}
    assert len({environment["SWEEP_ADMISSION_DIR"] for environment in shown}) == 3


@pytest.mark.usefixtures("three_gpus")
def test_a_worker_gets_as_many_gpus_as_a_run_wants(tmp_path):
    store = toy_sweep(tmp_path / "sweep", 1, n_workers=None)
    (shown,) = shown_environments(store, device="auto", n_devices=2)
    assert shown[0]["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    with pytest.raises(InputError, match=r"trainer.n_devices=4, but this machine has 3 GPUs"):
        launcher(store, device="auto", n_devices=4)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("2,0", ("GPU-2", "GPU-0")),
        ("GPU-1", ("GPU-1",)),
        ("MIG-7,0", ("MIG-7", "GPU-0")),
        ("", ()),
        ("-1", ()),
        (None, ("GPU-0", "GPU-1", "GPU-2")),
    ],
)
def test_only_visible_gpus_are_used(monkeypatch, visible, names):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.gpus() == names


@pytest.mark.parametrize(
    ("visible", "names"), [(None, ("0",)), ("1", ("1",)), ("MIG-7", ("MIG-7",)), ("GPU-5", ("GPU-5",))]
)
def test_a_slice_of_a_gpu_is_selected_as_the_user_does(monkeypatch, visible, names):
    slice_of_gpu = {"name": "Some GPU MIG 1g.10gb", "memory_bytes": MEMORY_BYTES, "uuid": "x"}
    monkeypatch.setattr(devices, "_probe", lambda visible: {"devices": {"cpu": {}, "cuda:0": slice_of_gpu}})
    monkeypatch.setattr(devices, "GPU_FILE", Path("/"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.gpus() == names


@pytest.mark.usefixtures("three_gpus")
def test_without_the_service_the_number_measured_with_it_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.machine.workers.cores", lambda: (0, 1, 2))
    monkeypatch.setattr(local, "mps_daemon", lambda visible: nullcontext(None))
    store = toy_sweep(tmp_path / "sweep", 1, n_workers=None)
    packing = Packing(n_workers=4, mps=True, speedup=1.5)
    shown = shown_environments(store, device="auto", packing=packing)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment, _ in shown] == ["GPU-0", "GPU-1", "GPU-2"]


@pytest.mark.usefixtures("three_gpus")
def test_the_service_can_be_asked_for_and_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(local, "mps_daemon", lambda visible: nullcontext({"MPS": f"of {visible}"}))
    packing = Packing(n_workers=1, mps=True, speedup=1.5)
    for mps, measured in ((True, None), (False, packing)):
        store = toy_sweep(tmp_path / f"sweep-{mps}", 1, n_workers=6)
        launch = LocalLaunch(name="local", n_workers=6, mps=mps)
        supervisor = LocalLauncher(
            store.sweep_dir, launch, device="auto", packing=measured, command=[sys.executable, "-c", SHOW]
        )
        supervisor.start()
        assert ["MPS" in slot.environment for slot in supervisor._slots] == [mps] * 6
        run_to_end(supervisor)


def test_a_service_that_is_asked_for_and_missing_is_an_error(tmp_path, monkeypatch):
    launch = LocalLaunch(name="local", n_workers=1, mps=True)
    store = toy_sweep(tmp_path, 1, n_workers=1)
    with pytest.raises(InputError, match=r"launch\.mps=true, but nvidia-cuda-mps-control was not found"):
        LocalLauncher(store.sweep_dir, launch, device="cpu", command=["true"]).start()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"set launch\.mps=null"):
        check_launch(launch)


@pytest.mark.usefixtures("three_gpus")
def test_a_gpu_that_torch_cannot_use_is_not_used(monkeypatch):
    broken = {"devices": {"cpu": {}}, "no_gpu_because": "the driver is too old"}
    monkeypatch.setattr(devices, "probe_torch", lambda: broken)
    monkeypatch.setattr(devices, "installed_gpus", lambda: ["H200"])
    assert devices.gpus() == ()
    assert devices.devices("auto")[0].key == "cpu"
    assert devices.unusable_gpus() == "torch cannot use H200 (the driver is too old)"


def test_torch_is_not_probed_where_no_gpu_can_be(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices, "GPU_FILE", tmp_path / "nvidiactl")
    monkeypatch.setattr(devices, "probe_torch", lambda: pytest.fail("probed"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.gpus() == ()


def test_cuda_without_a_gpu_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "gpus", lambda: ())
    with pytest.raises(InputError, match="no GPU was found"):
        launcher(toy_sweep(tmp_path, 1), device="cuda")


def test_the_worker_command_names_this_interpreter_and_an_absolute_directory():
    words = worker_command(Path("results/x"))
    assert words[0] == sys.executable
    assert words[-3:-1] == ["-m", "sweep.worker"]
    assert Path(words[-1]).is_absolute()


def test_waiting_costs_no_processor_time(tmp_path, monkeypatch):
    store = toy_sweep(tmp_path, 1, n_workers=1)
    supervisor = launcher(store, command=["sleep", "1"])
    supervisor.start()
    before = time.process_time()
    supervisor.wait(0.6)
    assert time.process_time() - before < 0.06
    supervisor.kill()
    supervisor.wait(5)


@pytest.mark.parametrize(
    ("content", "n_cores"),
    [("200000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("", None), ("1 0", None)],
)
def test_a_container_gets_as_many_workers_as_its_quota_is_worth(tmp_path, monkeypatch, content, n_cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(devices, "_siblings", str)
    monkeypatch.setattr(devices, "CPU_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(content)
    assert len(devices.cores()) == (n_cores or 8)
