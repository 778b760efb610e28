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


TOO_LITTLE = {
    "copies.txt": ("same line\n" * 5000, "9 bytes of text in 1 document after 4,999 copies were dropped"),
    "short.txt": ("".join(f"line {n}\n" for n in range(30)), "200 bytes of text in 30 documents"),
    "small.txt": (TEXT[:17_000], "16,651 bytes of text in 350 documents"),  # enough to score a run on
    "rows.jsonl": ('{"text": "same"}\n' * 9, "4 bytes of text in 1 document after 8 copies were dropped"),
    "line.txt": ("word " * 200_000, "1,000,000 bytes of text in 1 document"),
}


@pytest.mark.parametrize("name", TOO_LITTLE)
def test_a_corpus_with_too_little_text_is_refused_with_the_text_that_is_needed(name, tmp_path):
    content, found = TOO_LITTLE[name]
    (tmp_path / name).write_text(content)
    remedy = "split the text into more files or lines" if name == "line.txt" else "give more text"
    needed = "a sweep needs about 500,000 in 200 or more, to hold some out"
    refused = rf"--corpus .*{name} has {found}, and {needed}: {remedy}$"
    with pytest.raises(InputError, match=refused):
        init(InitOptions(directory=tmp_path / "new", name="x", corpus=str(tmp_path / name)))
    assert not (tmp_path / "new").exists()


def test_copies_do_not_count_for_the_text_on_which_runs_are_scored(tmp_path):
    (tmp_path / "some.txt").write_text(f"{TEXT[:120_000]}\n" * 10)
    assert forked("init", "--corpus", "some.txt", cwd=tmp_path).returncode == 0
    assert "  n_tokens: 2048  #" in (tmp_path / "configs/experiment/mine.yaml").read_text()


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
