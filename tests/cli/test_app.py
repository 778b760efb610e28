"""Verbs without training: --json documents, errors, imports and files written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.fit.planted import PlantedLaw, isoflop_points
from tests.shell import command, document, environment, sweep
from tests.verbs import forked

FEW = ("fit.n_bootstrap=50", "fit.methods=[isoflop,parametric]")


def table(directory: Path) -> Path:
    path = directory / "my runs, 2026.csv"
    points = isoflop_points(PlantedLaw(), (1e17, 1e18, 1e19), n_sizes=6, span=4)
    pd.DataFrame(
        [{"n_params": p.n_params, "n_tokens": p.n_tokens, "flops": p.flops, "loss": p.loss} for p in points]
    ).to_csv(path, index=False)
    return path


def test_plan_json_has_the_documented_keys(tmp_path):
    plan = document("plan", "experiment=smoke", f"data_dir={tmp_path / 'a b,c'}", cwd=tmp_path, call=forked)
    assert set(plan) == {
        "experiment",
        "runs",
        "dropped",
        "warnings",
        "hyperparameters",
        "flops_shared",
        "next",
    }
    assert plan["experiment"] == "smoke"
    assert len(plan["runs"]) == 12
    documented = {"run_key", "name", "flops_budget", "flops", "n_params", "n_tokens", "status"}
    for run in plan["runs"]:
        assert documented <= run.keys()
        assert run["status"] == "planned"
        assert abs(run["flops"] / run["flops_budget"] - 1) <= 0.02
    assert list(tmp_path.iterdir()) == []


def test_fit_of_a_table_prints_one_document_and_writes_nothing(tmp_path):
    path = table(tmp_path)
    fit = document("fit", path, *FEW, cwd=tmp_path, call=forked)
    assert {"schema_version", "points", "conventions", "methods", "agreement", "backtest"} <= fit.keys()
    assert {"isoflop", "parametric"} <= set(fit["methods"])
    assert {"a", "b", "ci", "E", "A", "B", "alpha", "beta"} <= fit["methods"]["parametric"].keys()
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_fit_predicts(tmp_path):
    done = forked("fit", table(tmp_path), *FEW, "--json", cwd=tmp_path)
    (tmp_path / "fit.json").write_text(done.stdout)
    one = document("predict", "fit.json", "1e20", "experiment=isoflop_1gpu", cwd=tmp_path, call=forked)
    assert one["flops"] == 1e20
    assert {"n_params_opt", "n_tokens_opt", "loss_opt", "ci", "prediction_interval"} <= one["methods"][
        "parametric"
    ].keys()
    assert {"d_model", "n_layers", "batch_tokens", "n_steps", "lr_peak"} <= one["shape"].keys()
    assert abs(one["shape"]["flops"] / 1e20 - 1) < 0.02
    both = document("predict", "fit.json", "1e20", "1e21", cwd=tmp_path, call=forked)
    assert [answer["flops"] for answer in both] == [1e20, 1e21]
    assert both[0] == one | {"shape": None}  # no model family is known for it


def test_config_can_be_read_back(tmp_path):
    from omegaconf import OmegaConf

    from sweep.config import read_experiment

    done = forked("config", "experiment=demo_bytes", "seeds=[0,1]", cwd=tmp_path)
    experiment = read_experiment(OmegaConf.to_container(OmegaConf.create(done.stdout)))
    assert (experiment.name, experiment.seeds) == ("demo_bytes", (0, 1))


REFUSED = [
    (
        ["plan", "experiment=demo", "budgets=[-1e9]"],
        "error: budgets=-1000000000.0 is not valid: it should be greater than 0",
    ),
    (
        ["plan", "experiment=demo", "modle.tied=true"],
        "error: modle.tied is not a known key: did you mean model.tied",
    ),
    (["run", "experiment=nothing"], "error: experiment=nothing not found: choose from cpu_stdlib"),
    (["run", "experiment=demo", "grid.d_model=[17]"], "error: d_model=17 does not divide into n_heads=2"),
    (["run", "experiment=demo", "grid.min_steps=100000"], "error: no cell of the grid can be trained"),
    (
        ["run", "experiment=demo", "schedule.warmup_frac=null", "schedule.warmup_tokens=1e9"],
        "error: schedule.warmup_tokens=1e+09 is a warmup of",
    ),
    (["plan", "name=x"], "error: no experiment is given: write sweep plan experiment=NAME name=x"),
    (["run", "seeds=[1]"], "error: no experiment is given: write sweep run experiment=NAME 'seeds=[1]'"),
    (["plan", "demo"], "error: demo is not KEY=VALUE: did you mean experiment=demo?"),
    (
        ["run", "experiment=demo", "trainer.device=cuda"],
        "error: trainer.device=cuda, and this machine shows no NVIDIA GPU",
    ),
    (["predict", "1e20"], "error: results holds no sweep here: give the directory of one"),
    (
        ["predict", "nowhere"],
        "error: no budget is given: add training FLOPs, as in sweep predict nowhere 1e21, or",
    ),
    (["predict", "besiroglu_2024", "manyx"], "error: manyx is not a budget"),
    (["predict", "besiroglu_2024", "0"], "error: 0 is not a budget: give training FLOPs"),
    (["predict", "besiroglu_2024", "1e20", "much"], "error: much is not a budget"),
    (["predict", "besiroglu_2024", "1e20", "seeds=[1]"], "error: seeds=[1] has no effect here"),
    (
        ["predict", "besiroglu_2024", "1e20", "--inference-tokens", "0"],
        "error: --inference-tokens 0",
    ),
    (["predict", "flops=1e21"], "error: flops=1e21 is no longer a setting: write sweep predict DIR 1e21"),
    (["predict", "flops=[1e20,1e21]"], "error: flops=[1e20,1e21] is no longer a setting: write sweep"),
    (
        ["predict", "law=x.json"],
        "error: law=x.json is no longer a setting: write sweep predict x.json FLOPS",
    ),
    (
        ["predict", "x", "inference_tokens=1"],
        "error: inference_tokens=1 is no longer a setting: write --inf",
    ),
    (["fit", "points=a b.csv"], "error: points=a b.csv is no longer a setting: write sweep fit 'a b.csv'"),
    (
        ["fit", "t.csv", "columns.loss=l"],
        "error: columns.loss=l is no longer a setting: write --column loss=l",
    ),
    (["fit", "reconcile=true"], "error: reconcile=true is no longer a setting: write --reconcile"),
    (["fit", "x.csv", "y.csv"], "error: x.csv and y.csv are both given"),
    (["fit", "x.csv", "seeds=[1]"], "error: seeds=[1] has no effect here: give settings of the fit"),
    (["fit", "nowhere", "--column", "loss=l"], "error: --column has no effect on a sweep"),
    (["fit", "nowhere", "--where", "loss < 3"], "error: --where has no effect on a sweep"),
    (["fit", "nowhere", "--best-of-cell"], "error: --best-of-cell has no effect on a sweep"),
    (
        ["fit", "x.csv", "--column", "lose=l"],
        "error: --column lose=l is not FIELD=NAME",
    ),
    (
        ["status", "nowhere", "seeds=[1]"],
        "error: seeds=[1] has no effect on nowhere",
    ),
    (["run", "experiment=demo", "data_dir=/proc/nowhere"], "error: data_dir=/proc/nowhere cannot be written"),
    (
        ["run", "experiment=demo", "evaluation.n_tokens=1e9"],
        "error: evaluation.n_tokens=1,000,000,000 is too large: it needs",
    ),
    (
        ["plan", "experiment=demo", "evaluation.n_tokens=1e9"],
        "error: evaluation.n_tokens=1,000,000,000 is too large: it needs",
    ),
    (["status", "results/none"], "error: results/none holds no sweep"),
    (["status", "a", "b"], "error: a and b are both given"),
    (["fit", "missing.csv"], "error: missing.csv not found: give a sweep's directory, or a .csv"),
    (["fit", "nowhere"], "error: nowhere holds no sweep"),
    (["predict", "nothing.json", "1e20"], "error: nothing.json not found: give a sweep's directory"),
    (["report", "nowhere"], "error: nowhere holds no sweep"),
    (["cancel", "nowhere"], "error: nowhere holds no sweep"),
    (["exclude", "nowhere", "../../etc", "--reason", "x"], "error: nowhere holds no sweep"),
    (["check-hparams"], "error: no experiment is given: write sweep check-hparams experiment=NAME"),
    (["plan", "--config-dir", "nowhere"], "error: --config-dir nowhere is not a directory"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_bad_input_is_one_sentence_exit_2_and_nothing_written(tmp_path, arguments, sentence):
    takes_overrides = arguments[0] in ("plan", "run") and len(arguments) > 1
    has_own = any("data_dir" in argument or argument == "--config-dir" for argument in arguments)
    own_data = [f"data_dir={tmp_path}.data"] if takes_overrides and not has_own else []
    done = forked(*arguments, *own_data, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert not Path(f"{tmp_path}.data").exists()


def test_an_unknown_verb_or_option_is_bad_input(tmp_path):
    for arguments in (["paln"], ["plan", "--jsn"], ["exclude", "a", "b"]):
        done = forked(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


TORCH_FREE = """
import json, sys
from sweep.cli.app import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as left:
        assert not left.code, (arguments, left.code)
    heavy = {"torch", "tokenizers", "safetensors", "datasets"}
    loaded = sorted(heavy & {name.partition(".")[0] for name in sys.modules})
    assert not loaded, (arguments, loaded)
"""


@pytest.mark.ci
def test_verbs_without_training_import_no_torch(tmp_path):
    path = table(tmp_path)
    law = forked("fit", path, "fit.n_bootstrap=20", "--json", cwd=tmp_path).stdout
    (tmp_path / "fit.json").write_text(law)
    verbs = (
        ["--help"],
        ["plan", "experiment=demo"],
        ["plan", "experiment=smoke", "--json"],
        ["config"],
        ["data", "inspect", "experiment=smoke"],
        ["fit", str(path), "fit.n_bootstrap=20"],
        ["predict", "fit.json", "1e20"],
    )
    done = subprocess.run(
        [sys.executable, "-c", TORCH_FREE, json.dumps(verbs)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_unexpected_exception_is_reported_as_a_bug(tmp_path):
    broken = "import sweep.config.compose as c; c.compose_experiments = lambda *a: 1 / 0"
    done = sweep("plan", "experiment=smoke", cwd=tmp_path, before=broken)
    assert done.returncode == 70
    assert "this is a bug in sweep" in done.stderr


def test_the_command_uses_this_interpreter():
    assert command("plan")[0] == sys.executable
