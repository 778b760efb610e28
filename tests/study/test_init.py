"""Experiments that `sweep init` writes: they can be planned, and say what a user may change."""

import json
from pathlib import Path

import pytest

from sweep.errors import InputError
from sweep.study.init import InitOptions, init
from tests.shell import document
from tests.verbs import forked

TEXT = "\n".join(f"Line {number} of a text that nobody else has written." for number in range(20_000))


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/one.txt").write_text(TEXT)
    (tmp_path / "corpus/two.txt").write_text(TEXT[::-1])
    rows = (json.dumps({"text": line}) for line in TEXT.splitlines())
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    return tmp_path


CASES = {
    "the standard library": (),
    "a directory of text": ("--corpus", "corpus", "--flops-budget", "1e11", "--name", "own"),
    "a glob, bytes and llama": ("--corpus", "corpus/*.txt", "--tokenizer", "byte", "--model", "llama"),
    "a table": ("--corpus", "rows.jsonl", "--model", "gpt", "--flops-budget", "3e12"),
    "a GPU": ("--device", "cuda", "--model", "gpt", "--flops-budget", "1e17", "--corpus", f"a/b@{'0' * 40}"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_experiment_can_be_planned(case, texts):
    done = forked("init", *CASES[case], cwd=texts)
    assert done.returncode == 0, done.stderr
    name = "own" if "own" in CASES[case] else "mine"
    text = (texts / f"configs/experiment/{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    assert max(map(len, text.splitlines())) <= 110
    assert f"  sweep plan experiment={name}\n  sweep run experiment={name}\n" in done.stdout
    plan = document("plan", f"experiment={name}", cwd=texts, call=forked)
    assert len(plan["runs"]) >= 12
    assert not [warning for warning in plan["warnings"] if "bracket" in warning]
    if "--flops-budget" in CASES[case]:
        given = float(CASES[case][CASES[case].index("--flops-budget") + 1])
        assert max(run["flops_budget"] for run in plan["runs"]) == given


def test_a_corpus_limits_the_budgets(texts):
    done = document("init", "--corpus", "corpus", cwd=texts, call=forked)
    text = (texts / "configs/experiment/mine.yaml").read_text()
    assert "as large as the corpus allows" in text
    assert "\nevaluation:\n  n_tokens: 32768  #" in text, "half of the text that is held out, rounded down"
    assert done["next"][0] == "sweep plan experiment=mine"
    plan = document("plan", "experiment=mine", cwd=texts, call=forked)
    n_tokens = 2 * len(TEXT) / 2.5
    assert 0.7 * n_tokens < max(run["n_tokens"] for run in plan["runs"]) < 2.5 * n_tokens


def test_another_directory_gets_absolute_paths(texts):
    done = forked("init", "new", "--corpus", "corpus", "--flops-budget", "2e10", cwd=texts)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:3] == ["  cd new", "  sweep plan experiment=new"]
    assert document("plan", "experiment=new", cwd=texts / "new", call=forked)["runs"]


REFUSED = {
    ("--corpus", "nowhere.txt"): "--corpus nowhere.txt not found",
    ("--corpus", ""): "--corpus is empty: give a file",
    ("--corpus", "owner/name"): "give OWNER/NAME@COMMIT, with the 40 hex digits",
    ("--corpus", "*.none"): "--corpus *.none has no files",
    ("--tokenizer", "words"): "--tokenizer words not found: give byte, bpe or a tokenizer.json",
    ("--flops-budget", "much"): "much is not a budget",
    ("--flops-budget", "1e3"): "no cell of the grid can be trained",
    ("--name", "a/b"): "--name a/b is invalid",
    ("--corpus", "a.txt", "b.txt", "c.txt"): "put a glob in quotes, as --corpus 'texts/*.txt'",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(options, tmp_path):
    done = forked("init", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert REFUSED[options] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_created_is_named():
    with pytest.raises(InputError, match="/proc/x/configs/experiment cannot be created"):
        init(InitOptions(directory=Path("/proc/x"), name="x"))


def test_a_file_is_never_replaced(tmp_path):
    assert forked("init", "--flops-budget", "2e10", cwd=tmp_path).returncode == 0
    before = (tmp_path / "configs/experiment/mine.yaml").read_text()
    again = forked("init", "--flops-budget", "4e10", cwd=tmp_path)
    assert "configs/experiment/mine.yaml already exists" in again.stderr
    for mistake in (("--corpus", "nowhere.txt"), ("--tokenizer", "words")):  # wrong under any name
        assert f"{' '.join(mistake)} not found" in forked("init", *mistake, cwd=tmp_path).stderr
    assert (tmp_path / "configs/experiment/mine.yaml").read_text() == before
