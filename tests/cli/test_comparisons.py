"""The verbs compare and fit-hparams: documents, text, exit codes and files written."""

import json

import numpy as np
import pytest

from scripts.benchmarks.compare_coverage import Plant
from tests.fit.test_hparam_laws import GRID, planted
from tests.study.test_compare import table
from tests.verbs import forked


def sweep(tmp_path, *arguments):
    return forked(*arguments, cwd=tmp_path)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tables")
    a, b, _ = Plant(name="factor").draw(np.random.default_rng(0))
    return [table(directory / f"{arm.name}.csv", arm.points) for arm in (a, b)]


def test_compare_prints_text_json_and_a_figure(tmp_path, tables):
    done = sweep(tmp_path, "compare", *tables, "fit.confidence=0.9", "--figure", "c.png", "--flops", "6.4e12")
    assert done.returncode == 0, done.stderr
    assert "at 6.4e12 FLOPs A needs 1.3" in done.stdout
    assert "90% intervals" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]
    document = json.loads(sweep(tmp_path, "compare", *tables, "--json").stdout)
    assert document["next"][0].startswith("sweep compare ")
    assert document["confidence"] == 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "other"], "absent not found"),
        (["--flops", "1e17"], "times the largest budget"),
        (["--flops", "much"], "much is not a budget"),
        (["--figure", "c.pdf"], "--figure c.pdf is not .png or .svg"),
        (["--figure", "absent/c.png"], "the directory absent is not found"),
        (["--figure", "d.png"], "--figure d.png is a directory: give a file, as d.png/compare.png"),
        (["fit.confidence=2"], "fit.confidence"),
        (["optimizer.lr=3"], "optimizer.lr=3 has no effect here"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, tables, arguments, message):
    sources = [] if arguments[0] == "absent" else tables
    (tmp_path / "d.png").mkdir()
    done = sweep(tmp_path, "compare", *sources, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_fit_hparams_gives_rules_that_a_plan_takes(tmp_path):
    rows = [(p.n_params, p.n_tokens, p.lr_peak, p.batch_tokens, p.loss) for p in planted(GRID[::2])]
    lines = ["N,D,lr,batch_tokens,loss", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    done = sweep(tmp_path, "fit-hparams", "runs.csv")
    assert done.returncode == 0, done.stderr
    assert "learning rate: N^-0.7" in done.stdout
    rules = json.loads(sweep(tmp_path, "fit-hparams", "runs.csv", "--json").stdout)["rules"]
    settings = [f"{key}='{rule}'" for key, rule in rules.items()]
    planned = sweep(tmp_path, "plan", "experiment=smoke", "data_dir=d", settings[0], "batch_tokens=640")
    assert planned.returncode == 0, planned.stderr
    absent = sweep(tmp_path, "fit-hparams", "absent.csv")
    assert (absent.returncode, len(absent.stderr.splitlines())) == (2, 1)
    assert sweep(tmp_path, "fit-hparams", "runs.csv", "--window", "3").returncode == 2
