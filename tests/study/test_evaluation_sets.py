"""Evaluation sets: scored at the end of each run, stored as columns, and fitted by name."""

from __future__ import annotations

import csv
import json
import random
import sqlite3
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from sweep.config import EvaluationSet
from sweep.config.compose import compose_experiment
from sweep.errors import DataError, InputError, SafetyError
from sweep.identity import run_key, trunk_key
from sweep.store.run_store import RunStore
from sweep.study.checks import check_family
from sweep.study.laws import fit_arms
from sweep.study.plan import plan_experiment
from sweep.study.sweep import open_sweep
from tests.configs import tiny_run
from tests.verbs import forked

SMALL = (
    "experiment=smoke",
    "grid.d_model=[8,12]",
    "budgets=[2e8]",
    "evaluation.n_tokens=1024",
    "fit.n_bootstrap=5",
    "launch.n_workers=1",
    "trainer.device=cpu",
)
SETS = "evaluation.sets={near:{source:text,files:[near.txt]},far:{source:text,files:[far/*.txt]}}"


def write_texts(directory: Path) -> None:
    """Write a training corpus, a single file of its words, and files of other words."""
    chance = random.Random(0)
    words = {name: ["".join(chance.choices(name, k=4)) for _ in range(50)] for name in ("abcdef", "uvwxyz")}
    for folder in ("train", "far"):
        (directory / folder).mkdir()
    for number in range(60):
        text = " ".join(chance.choices(words["abcdef"], k=400))
        (directory / f"train/{number}.txt").write_text(text)
    for number in range(4):
        (directory / f"far/{number}.txt").write_text(" ".join(chance.choices(words["uvwxyz"], k=400)))
    (directory / "tiny.txt").write_text("x")
    (directory / "near.txt").write_text(" ".join(chance.choices(words["abcdef"], k=800)))


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    write_texts(tmp_path)
    monkeypatch.chdir(tmp_path)
    return (*SMALL, "data=text", "data.files=train/*.txt", f"data_dir={tmp_path}/data", "tokenizer=byte")


@pytest.mark.ci
def test_sets_are_scored_stored_and_fitted(tmp_path: Path, texts: tuple[str, ...]) -> None:
    done = forked("run", *texts, SETS, f"store.index_url=sqlite:///{tmp_path}/points.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep_dir = tmp_path / "results/smoke"
    with (sweep_dir / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-4:] == ["loss_far", "bits_per_byte_far", "loss_near", "bits_per_byte_near"]
    for row in rows:  # unseen letters cost more than those of the training text, which cost about as held-out
        assert float(row["loss_near"]) < float(row["loss_far"])
        assert float(row["loss_near"]) == pytest.approx(float(row["loss"]), rel=0.1)
        assert float(row["bits_per_byte_far"]) > float(row["loss_far"])  # 1/ln 2, a byte is a token
    table = pyarrow.parquet.read_table(sweep_dir / "points.parquet").to_pydict()
    assert table["loss_far"] == [float(row["loss_far"]) for row in rows]
    stored = json.loads(next(sweep_dir.glob("runs/*/result.json")).read_text())
    assert {"loss_far", "bits_per_byte_near"} <= stored["point"].keys()
    with sqlite3.connect(tmp_path / "points.db") as database:
        copied = database.execute("select run_key, loss_near from sweep_points").fetchall()
    assert dict(copied) == {row["run_key"]: float(row["loss_near"]) for row in rows}
    assert set(open_sweep(sweep_dir).points()["loss_far"]) == set(table["loss_far"])

    refused = forked("fit", sweep_dir, "--loss", "other", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.endswith(f"error: unknown loss other of {sweep_dir}: choose from far, near\n")
    assert forked("fit", sweep_dir, "--loss", "far", cwd=tmp_path).returncode == 0
    assert (sweep_dir / "losses/far/fit.json").is_file()
    config = compose_experiment(SMALL).fit
    fits = [fit_arms(sweep_dir, config, loss=loss)[None].to_json() for loss in (None, "far")]
    assert fits[0]["points"]["n"] == fits[1]["points"]["n"] == 2


def test_keys_of_runs_without_sets_stay_and_sets_are_part_of_the_others() -> None:
    run = tiny_run()
    one, other = (
        replace(run, evaluation=replace(run.evaluation, sets=(EvaluationSet(name="a", corpus_sha256=sha),)))
        for sha in ("0" * 64, "1" * 64)
    )
    assert len({run_key(run), run_key(one), run_key(other)}) == 3
    assert trunk_key(run) == trunk_key(one)


def test_a_plan_refuses_other_sets_under_the_same_name(tmp_path: Path, texts: tuple[str, ...]) -> None:
    def plan(*overrides: str):
        return plan_experiment(compose_experiment([*texts, *overrides]))

    store = RunStore(tmp_path / "results/smoke")
    store.add_plan(plan(SETS))
    check_family(store, plan(SETS))
    with pytest.raises(SafetyError, match=r"evaluation\.sets\.far=\{source:text.* plan has .*far=null"):
        check_family(store, plan("evaluation.sets={near:{source:text,files:[near.txt]}}"))
    (tmp_path / "near.txt").write_text("abc" * 300)
    with pytest.raises(SafetyError, match=r"content of evaluation\.sets\.near=sha256"):
        check_family(store, plan(SETS))


@pytest.mark.parametrize(
    ("override", "error", "sentence"),
    [
        (
            "{stderr:{source:stdlib}}",
            InputError,
            r"evaluation\.sets has the key 'stderr', which is not valid: use lower",
        ),
        ("{a:{files:[near.txt]}}", InputError, r"evaluation\.sets\.a\.source is missing"),
        (
            "{a:{source:text,files:[tiny.txt]}}",
            DataError,
            r"sets\.a: it has 1 bytes, one window at",
        ),
        ("{a:{source:huggingface,dataset:x/y}}", InputError, r"sets\.a: data\.revision is missing"),
        ("[a]", InputError, r"evaluation\.sets=\['a'\] is not valid: it should be a section of keys"),
        ("{a:{source:text}}", InputError, r"evaluation\.sets\.a\.files is missing"),
        (
            "{a:{source:text,files:[near.txt],fils:1}}",
            InputError,
            r"sets\.a\.fils is not a known",
        ),
        ("{a:{source:stdlib,holdout_frac:0.5}}", InputError, r"sets\.a\.holdout_frac has no effect"),
        (
            "{a:{source:text,files:[none.txt]}}",
            DataError,
            r"sets\.a: data\.files=none\.txt matches no",
        ),
    ],
)
def test_bad_sets_are_refused_by_the_plan(
    texts: tuple[str, ...], override: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        plan_experiment(compose_experiment([*texts, f"evaluation.sets={override}"]))
