"""Names that want out: of runs, sweeps, arms and corpora. Nothing is ever written outside the root."""

import json
from pathlib import Path

import pytest

from sweep.config import TokenizerConfig, read_experiment, to_dict
from sweep.config.compose import compose_experiment
from sweep.config.places import sweep_directory
from sweep.data.shards import prepare_documents
from sweep.errors import InputError
from sweep.records import Plan
from sweep.store.plans import run_directory
from sweep.store.run_store import RunStore
from sweep.study.laws import arm_directory
from sweep.worker.__main__ import work
from tests.configs import tiny_run
from tests.plans import planned
from tests.toy_trainer import toy_experiment, toy_sweep, train
from tests.train.corpus import generated_documents

HOSTILE = [
    "", " ", ".", "..", "...", "../", "../x", "../../etc/cron.d/x", "x/../../y", "x/..", "./x", "/", "//",
    "/etc/passwd", "/var/x", "~", "~root", "~/x", "x/y", "x\\y", "..\\..\\x", "C:\\x", "C:x",
    "\\\\host\\share", "\x00", "x\x00y", "\n", "x\ny", "x\r", "\t", "\x1b[2J", "\x7f", "-", "-rf", "--help",
    "-x/../y", "a" * 101, "a" * 300, "é" * 300, "x" * 5000, "\u202ex", "x\u200b", "\ufeffx",
    "\uff0e\uff0e\uff0fx", "\u2025/x", "x\u2215y", "\uff4e\uff41\uff4d\uff45", "x\u0300", "\udcff", "CON",
    "nul", "aux.txt", "COM1", "lpt9.log", "x.", "x ", " x", "$HOME", "$(id)", "`id`", "x;id", "x|y", "x&y",
    "*", "?", "[x]", "{a,b}", "<x>", "x:y", "%2e%2e%2f", ".hidden", "'x'", '"x"', "=x", "#x", "!x", "@x",
]  # fmt: skip


def outside(root: Path) -> set[Path]:
    return {path for path in root.parent.rglob("*") if path != root and root not in path.parents}


@pytest.fixture
def root(tmp_path):
    directory = tmp_path / "outer" / "root"
    directory.mkdir(parents=True)
    return directory


def test_there_are_enough_of_them():
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_no_sweep_is_called_that(name):
    with pytest.raises(InputError, match="name="):
        read_experiment({**to_dict(toy_experiment()), "name": name})


def test_what_the_command_line_makes_of_a_name_stays_inside(root):
    """Hydra's grammar may read another text into it: then that one is inside."""
    for name in HOSTILE[::3]:
        try:
            experiment = compose_experiment(["experiment=smoke", f"name={name}", f"results_dir={root}"])
        except InputError:
            continue
        assert sweep_directory(experiment).resolve().parent == root, ascii(name)


def test_no_run_is_called_that(root):
    """Keys of runs come from the command line and from plan files that anybody may have edited."""
    store = toy_sweep(root, 1)
    before = outside(root)
    plan_file = next((root / "plans").iterdir())
    sound = json.loads(plan_file.read_text())
    for name in HOSTILE:
        for call in (
            lambda key: run_directory(root, key),
            store.retry,
            lambda key: store.exclude(key, "why"),
        ):
            with pytest.raises(InputError, match="is not a run key"):
                call(name)
        plan_file.write_text(json.dumps({**sound, "runs": [{**sound["runs"][0], "run_key": name}]}))
        with pytest.raises(InputError, match="not a valid plan"):
            work(root, train=train)
    assert outside(root) == before


def test_runs_and_arms_labelled_so_stay_inside(root):
    runs = [
        planned(tiny_run(name=name, arm=f"x={name}", seed=i))
        for i, name in enumerate(HOSTILE)
        if "\udcff" not in name
    ]
    before = outside(root)
    sweep_dir = root / "sweep"
    store = RunStore(sweep_dir)
    store.add_plan(Plan(experiment=toy_experiment(), runs=tuple(runs), dropped=(), warnings=()))
    work(sweep_dir, train=train)
    assert store.status().counts == {"done": len(runs)}
    store.write_points()
    for name in HOSTILE:
        assert arm_directory(sweep_dir, f"x={name}").resolve().parent == (sweep_dir / "arms").resolve()
    assert outside(root) == before
    assert {path.name for path in (sweep_dir / "runs").iterdir()} == {run.run_key for run in runs}


def test_corpora_called_so_stay_inside(root):
    documents = [*generated_documents(8, 50)]
    before = outside(root)
    for name in HOSTILE:
        if "\udcff" in name:
            continue  # names come from UTF-8 configs
        data = prepare_documents(
            documents,
            name=name,
            holdout_frac=0.3,
            tokenizer=TokenizerConfig(name="byte", vocab_size=256),
            data_dir=root,
        )
        assert root in data.directory.resolve().parents
    assert outside(root) == before
