"""Odd processes, paths and files: each verb works, or says in one sentence why it cannot."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from sweep.config.compose import compose_experiment
from sweep.config.places import sweep_directory, user_path
from sweep.errors import InputError
from sweep.study.checks import check_results_path
from tests.shell import command, document, environment, sweep
from tests.toy_trainer import toy_sweep
from tests.verbs import forked

SMALL = ("experiment=smoke", "grid.d_model=[8]", "budgets=[2e9]", "evaluation.n_tokens=4096")


def shell(line: str, *arguments: object, cwd) -> subprocess.CompletedProcess[str]:
    """Run the command line in a shell, where `line` holds "$@" and changes the process around it."""
    return subprocess.run(
        ["sh", "-c", line, "sh", *command(*arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_deleted_working_directory_is_one_sentence(tmp_path):
    (tmp_path / "gone").mkdir()
    done = shell('cd gone && rmdir ../gone && exec "$@"', "plan", *SMALL, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: the working directory does not exist any more: change to another one\n"


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "2>/dev/full", "<&- 2>&-"])
def test_a_plan_needs_no_stdin_and_no_stderr(tmp_path, closed):
    done = shell(f'exec "$@" {closed}', "plan", *SMALL, f"data_dir={tmp_path / 'd'}", cwd=tmp_path)
    assert done.returncode == 0
    assert "2e09" in done.stdout or "2e+09" in done.stdout


@pytest.mark.parametrize("place", ["file", "file/below", "loop", "dangling/below"])
def test_a_plan_refuses_a_place_that_cannot_hold_a_sweep(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    with pytest.raises(
        InputError, match=rf"^results_dir={place} cannot be used, \w+ is no directory: choose"
    ):
        check_results_path(compose_experiment([*SMALL, f"results_dir={place}"]))
    check_results_path(compose_experiment([*SMALL, "results_dir=new/below"]))


def test_a_tilde_that_names_no_user_has_a_remedy_that_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"^results_dir=~nobody-here/x names the home .*: write \./~nobody-h"
    ):
        user_path("~nobody-here/x", "results_dir")
    assert user_path("./~nobody-here/x").absolute() == tmp_path / "~nobody-here" / "x"


@pytest.mark.parametrize(
    "verb", [("plan", *SMALL), ("fit", "t.csv"), ("predict", "besiroglu_2024", "1e21"), ("status",)]
)
def test_a_verb_that_only_prints_says_at_once_that_stdout_is_closed(tmp_path, verb):
    """Nothing is read before: there is neither a table nor a sweep."""
    done = shell('exec "$@" >&-', *verb, cwd=tmp_path)
    sentence = "error: standard output is closed: redirect it to a file or a pipe to get the result\n"
    assert (done.returncode, done.stderr) == (2, sentence)


def test_a_verb_with_results_in_files_needs_no_stdout(tmp_path):
    rows = "".join(f"{n}e5,{n}e6,{6 * n * n}e11,{4 - n / 10}\n" for n in range(1, 7))
    (tmp_path / "t.csv").write_text("n_params,n_tokens,flops,loss\n" + rows)
    done = shell('exec "$@" >&-', "import", "t.csv", "--into", "theirs", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len((tmp_path / "theirs" / "points.csv").read_text().splitlines()) == 7


def test_a_worker_and_an_export_need_no_stderr(tmp_path):
    store = toy_sweep(tmp_path / "sweep", 1)  # without data and results: both refuse it
    line = 'exec "$@" <&- 2>&-'
    assert shell(line, "worker", store.sweep_dir, cwd=tmp_path).returncode == 2
    (key,) = store.run_keys()
    assert shell(line, "export", store.sweep_dir, key, "--to", "out", cwd=tmp_path).returncode == 2


@pytest.fixture
def without_home(monkeypatch):
    """A user without HOME and without an entry in the password database."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    probe = ["unshare", "--user", "--map-user=12345", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this system makes no user namespaces")
    return 'exec unshare --user --map-user=12345 "$@"'


@pytest.mark.ci
def test_without_a_home_directory_data_dir_must_be_given(tmp_path, without_home):
    refused = shell(without_home, "plan", *SMALL, cwd=tmp_path)
    assert refused.returncode == 2
    assert "give data_dir=DIR, or set HOME or XDG_CACHE_HOME" in refused.stderr
    assert refused.stderr.count("\n") == 1
    given = f"data_dir={tmp_path / 'data'}"
    assert shell(without_home, "plan", *SMALL, given, cwd=tmp_path).returncode == 0
    tilde = shell(without_home, "plan", *SMALL, given, "results_dir=~/sweeps", cwd=tmp_path)
    assert tilde.returncode == 2
    assert "results_dir=~/sweeps needs a home directory" in tilde.stderr


def test_a_home_that_is_no_directory_has_no_measurements(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", os.devnull)
    assert sweep("plan", *SMALL, f"data_dir={tmp_path / 'd'}", cwd=tmp_path).returncode == 0


def test_a_path_of_4000_characters_is_refused_before_anything_is_prepared(tmp_path):
    data = tmp_path / "data"
    too_deep = "has 2001 nested directories, at most 256 can be created: use a shorter path"
    for path, sentence in (("a" * 4000, "cannot be used: File name too long"), ("a/" * 2000 + "b", too_deep)):
        done = forked("run", *SMALL, f"data_dir={data}", f"results_dir={path}", cwd=tmp_path)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert not data.exists()


def test_a_tilde_is_the_home_directory_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    configs = tmp_path / "configs/experiment"
    configs.mkdir(parents=True)
    (configs / "tilde.yaml").write_text(
        "# @package _global_\ndefaults: [smoke]\nname: t\nresults_dir: ~/sweeps\n"
    )
    monkeypatch.chdir(tmp_path)
    for settings in (["experiment=tilde"], ["experiment=smoke", "results_dir=~/sweeps", "name=t"]):
        experiment = compose_experiment(settings)
        assert experiment.results_dir == "~/sweeps"
        assert sweep_directory(experiment) == tmp_path / "home/sweeps/t"
    toy_sweep(tmp_path / "home/sweeps/t", 1)
    assert forked("status", "~/sweeps/t", cwd=tmp_path).returncode == 0
    assert forked("cancel", "~/sweeps/t", cwd=tmp_path).returncode == 0
    table = "n_params,n_tokens,flops,loss\n1e6,2e7,1.2e14,3.5\n"
    (tmp_path / "home/t.csv").write_text(table)
    assert forked("import", "~/t.csv", "--into=~/sweeps/i", cwd=tmp_path).returncode == 0
    assert (tmp_path / "home/sweeps/i/points.csv").is_file()
    refused = forked("fit", "~/p.csv", cwd=tmp_path)
    assert f"{tmp_path / 'home/p.csv'} not found" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs", "home"]


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ("~/corpus/*.txt", ("~/corpus/*.txt",)),
        ("[~/a b/*.txt, b,c's/[0-9],2.txt]", ("~/a b/*.txt", "b", "c's/[0-9]", "2.txt")),
        ("['x,y.txt',z(1).txt]", ("x,y.txt", "z(1).txt")),
        ("a=b {c}.txt", ("a=b {c}.txt",)),
        ("2024", ("2024",)),
    ],
)
def test_paths_need_no_quotes(given, files):
    assert compose_experiment(["experiment=smoke", "data=text", f"data.files={given}"]).data.files == files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends_of_a_yaml_file_are_harmless(
    tmp_path, monkeypatch, encoding, line_end
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "configs/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - smoke\nname: mine\nresults_dir: Ergebnisse/ü\n"
    file.write_bytes(text.replace("\n", line_end).encode(encoding))
    experiment = compose_experiment(["experiment=mine"])
    assert (experiment.name, experiment.results_dir) == ("mine", "Ergebnisse/ü")


def test_a_missing_first_line_is_named_and_its_remedy_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "configs/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("defaults:\n  - smoke\n  - override /data: text\nname: mine\ndata: {files: x}\n")
    with pytest.raises(InputError, match=r"mine\.yaml does not begin with the line `# @package _global_`"):
        compose_experiment(["experiment=mine"])
    file.write_text("# @package _global_\n" + file.read_text())
    assert compose_experiment(["experiment=mine"]).data.files == ("x",)


def test_a_path_as_experiment_is_refused_with_its_name(tmp_path):
    done = forked("plan", "experiment=configs/experiment/smoke.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "give the name alone, experiment=smoke" in done.stderr


def test_commands_for_a_directory_named_like_a_home_directory_work(tmp_path):
    toy_sweep(tmp_path / "~one", 1)
    refused = forked("fit", "./~one", cwd=tmp_path)
    assert "see its runs with sweep status './~one'" in refused.stderr
    following = document("status", "./~one", cwd=tmp_path, call=forked)["next"]
    assert following == ["sweep worker './~one'"]
    (verb, directory) = shlex.split(following[0])[1:]
    assert forked(verb, directory, "--help", cwd=tmp_path).returncode == 0
    assert document("status", directory, cwd=tmp_path, call=forked)["counts"]


def test_without_a_directory_the_only_sweep_is_meant(tmp_path):
    for verb in ("status", "fit", "report"):
        done = forked(verb, cwd=tmp_path)
        assert done.returncode == 2
        assert "results holds no sweep here" in done.stderr
    toy_sweep(tmp_path / "results/one", 1)
    assert "planned" in forked("status", cwd=tmp_path).stdout
    assert "results/one has no finished run" in forked("fit", cwd=tmp_path).stderr
    refused = forked("report", cwd=tmp_path).stderr
    assert "results/one has no finished run to fit: see its runs with sweep status results/one" in refused
    assert "results/one has no fit.json yet" in forked("predict", "1e12", cwd=tmp_path).stderr
    toy_sweep(tmp_path / "results/two", 1)
    for arguments in (("status",), ("fit",), ("report",), ("predict", "1e12")):
        done = forked(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert "results holds 2 sweeps: give one of results/one, results/two" in done.stderr


def test_plan_and_run_ask_for_an_experiment(tmp_path):
    for verb in ("plan", "run"):
        done = forked(verb, cwd=tmp_path)
        assert done.returncode == 2
        assert f"write sweep {verb} experiment=NAME with one of cpu_stdlib, " in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("budget", "asked", "remedy", "follow"),
    [
        ("2e11", "model.width_multiple=128", "lower model.width_multiple", ("model.width_multiple=4",)),
        ("2e11", "model.width_multiple=128", "give grid.d_model", ("grid.d_model=[64,128]",)),
        ("2e9", "grid.n_sizes=6", "lower grid.n_sizes", ("grid.n_sizes=3",)),
    ],
)
def test_sizes_that_round_to_one_shape_are_named_once_with_their_cause(
    tmp_path, budget, asked, remedy, follow
):
    """Each remedy is followed, and nothing rounds any more."""
    common = ("experiment=smoke", f"budgets=[{budget}]", "grid.min_steps=1", f"data_dir={tmp_path / 'd'}")
    chosen = ("grid.d_model=null", "grid.n_sizes=6", "model.width_multiple=4")
    shown = forked("plan", *common, *chosen, asked, cwd=tmp_path).stdout
    assert shown.count("the 6 sizes asked for round to d_model") == 1
    assert remedy in shown
    kept = () if follow[0].startswith("grid.d_model") else chosen
    followed = forked("plan", *common, *kept, *follow, cwd=tmp_path)
    assert followed.returncode == 0, followed.stderr
    assert "round to d_model" not in followed.stdout
