"""The container image: linted, built for real without a daemon, and run as configured.

Images cannot be pulled everywhere, so the base is made here, of the packages this machine gets its own from:
a minimal Debian without Python, which is what a CUDA base looks like to the Dockerfile.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.service, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str], timeout_s: float, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done  # type: ignore[no-any-return]


# --- building ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Buildah:
    """buildah with a private store, separate from that of this machine."""

    store: Path
    driver: str = "overlay"

    def command(self, *arguments: str) -> list[str]:
        places = ["--root", str(self.store / "root"), "--runroot", str(self.store / "run")]
        return ["buildah", *places, "--storage-driver", self.driver, *arguments]

    def build(self, context: Path, tag: str, *arguments: str) -> str:
        """Build the Dockerfile of a directory; return the output."""
        options = ["--isolation", "chroot", "--network", "host", "--layers", *arguments]
        done = run(self.command("bud", *options, "-t", tag, str(context)), 1500)
        return done.stdout + done.stderr


def buildah_in(store: Path) -> Buildah:
    """Return overlay if the file system supports it, else vfs, which copies gigabytes per layer."""
    layered = Buildah(store=store / "overlay")
    asked = subprocess.run(layered.command("info"), capture_output=True, timeout=60)
    return layered if asked.returncode == 0 else Buildah(store=store / "vfs", driver="vfs")


def debian(target: Path) -> Path:
    """A root file system of this machine's release, from its configured mirror, and a tar of it."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    mirror = run(targets, 60).stdout.split()[0]
    root = target / "debian"
    run(["debootstrap", "--variant=minbase", release["VERSION_CODENAME"].strip('"'), str(root), mirror], 600)
    (root / "etc" / "apt" / "sources.list").unlink(missing_ok=True)
    for kind in ("sources.list", "sources.list.d", "apt.conf.d"):
        here, there = Path("/etc/apt") / kind, root / "etc" / "apt" / kind
        if here.is_dir():
            shutil.copytree(here, there, dirs_exist_ok=True)
        elif here.is_file():
            shutil.copy(here, there)
    run(["tar", "-C", str(root), "-cf", str(target / "debian.tar"), "."], 300)
    shutil.rmtree(root)
    return target / "debian.tar"


def pip_mounts(directory: Path) -> list[str]:
    """Options that mount the pip configuration of this machine into the build, never into the image.

    Directories keep their place; files, certificates mostly, are shown where no package manages them.
    """
    settings: dict[str, str] = {}
    for line in run([sys.executable, "-m", "pip", "config", "list"], 60).stdout.splitlines():
        name, _, value = line.partition("=")
        settings[name.split(".")[-1]] = value.strip("'\"").replace("\\n", " ")
    mounts = [f"{directory / 'pip.conf'}:/etc/pip.conf:ro"]
    for name, value in settings.items():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                inside = path if path.is_dir() else Path("/run/pip") / path.name
                settings[name] = settings[name].replace(str(path), str(inside))
                # an index in a directory has its files next to its pages
                is_index = path.name == "simple" and path.is_dir()
                mounts.append(f"{path.parent}:{path.parent}:ro" if is_index else f"{path}:{inside}:ro")
    lines = ["[global]", *(f"{name} = {value}" for name, value in settings.items())]
    (directory / "pip.conf").write_text("\n".join(lines) + "\n")
    return [option for mount in dict.fromkeys(mounts) for option in ("--volume", mount)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources that tests may change."""
    target = tmp_path_factory.mktemp("checkout") / "sweep"
    ignored = shutil.ignore_patterns(".git", ".venv", "results", "__pycache__", ".*_cache", "tests")
    shutil.copytree(ROOT, target, ignore=ignored)
    return target


@dataclass(frozen=True, kw_only=True)
class Image:
    buildah: Buildah
    tag: str
    arguments: tuple[str, ...]  # of the build
    output: str  # of the build


@pytest.fixture(scope="module")
def image(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    store = tmp_path_factory.mktemp("store")
    buildah = buildah_in(store)
    base = tmp_path_factory.mktemp("base")
    debian(base)
    (base / "Dockerfile").write_text("FROM scratch\nADD debian.tar /\n")
    buildah.build(base, "localhost/debian")
    arguments = ("--build-arg", "BASE=localhost/debian", *pip_mounts(base))
    output = buildah.build(checkout, "localhost/sweep", *arguments)
    yield Image(buildah=buildah, tag="localhost/sweep", arguments=arguments, output=output)
    shutil.rmtree(store)  # gigabytes


def config_of(image: Image) -> dict[str, object]:
    inspected = run(image.buildah.command("inspect", "--type", "image", image.tag), 60).stdout
    return json.loads(inspected)["OCIv1"]["config"]  # type: ignore[no-any-return]


@pytest.fixture
def container(image: Image) -> Iterator[str]:
    name = run(image.buildah.command("from", image.tag), 600).stdout.strip()
    yield name
    run(image.buildah.command("rm", name), 300)


def inside(image: Image, container: str, *command: str) -> list[str]:
    """Return the command prefix that runs another as the image's user, in its directory."""
    return image.buildah.command("run", "--isolation", "chroot", container, "--", *command)


# --- tests -------------------------------------------------------------------------------------------


def test_the_dockerfile_is_lint_free() -> None:
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_configured_to_run_the_smoke_sweep_under_an_init_as_an_ordinary_user(image: Image) -> None:
    config = config_of(image)
    assert config["Entrypoint"] == ["tini", "--"]
    assert config["Cmd"] == ["sweep", "run", "experiment=smoke"]
    assert (config["User"], config["WorkingDir"]) == ("10001", "/sweeps")


def test_code_changes_leave_the_dependencies_cached(image: Image, checkout: Path) -> None:
    with (checkout / "sweep" / "__init__.py").open("a") as source:
        source.write("# changed\n")
    again = image.buildah.build(checkout, "localhost/sweep-again", *image.arguments)
    assert again.count("Using cache") >= 5  # up to and with the dependencies
    assert "requirements.txt" not in again.split("Using cache")[-1]
    assert "Successfully installed sweep" in again
    assert "Successfully installed torch" not in again.replace("\n", " ")


def test_the_default_command_runs_the_smoke_sweep(image: Image, container: str) -> None:
    config = config_of(image)
    command = [*config["Entrypoint"], *config["Cmd"]]  # type: ignore[misc]
    run(inside(image, container, *command), 900)
    points = run(inside(image, container, "cat", "/sweeps/results/smoke/points.csv"), 60).stdout
    assert len(points.splitlines()) == 1 + 12
    owner = run(inside(image, container, "stat", "-c", "%U", "results/smoke/points.csv"), 60).stdout
    assert owner.strip() == "sweep"
    doctor = run(inside(image, container, "sweep", "doctor", "--json"), 120).stdout
    assert json.loads(doctor)["ok"] is True
    whoami = run(inside(image, container, "id", "-u"), 60).stdout
    assert whoami.strip() == "10001"


def test_sigterm_to_the_init_stops_the_sweep_with_its_state_saved(image: Image, container: str) -> None:
    config = config_of(image)
    command = [*config["Entrypoint"], "sweep", "run", "experiment=smoke", "budgets=[2e11]"]  # type: ignore[misc]
    started = subprocess.Popen(
        inside(image, container, *command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        init = wait_for_init(started.pid)
        wait_for_worker(init)
        os.kill(init.pid, signal.SIGTERM)
        output = started.communicate(timeout=120)[0].decode()
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 75, output
    assert "stopped, state saved" in output


def wait_for_init(pid: int) -> psutil.Process:
    """Return the init of the container, among the children of buildah."""
    for _ in range(600):
        for child in psutil.Process(pid).children(recursive=True):
            if child.name() == "tini":
                return child
        time.sleep(0.1)
    raise AssertionError("no init was started")


def wait_for_worker(init: psutil.Process) -> None:
    """Wait until a worker of the sweep has trained for a moment."""
    for _ in range(1200):
        for child in init.children(recursive=True):
            if "sweep.worker" in " ".join(child.cmdline()) and sum(child.cpu_times()[:2]) > 5:
                return
        time.sleep(0.1)
    raise AssertionError("no worker was started")
