"""Verbs without training: contracts of --json, refusals, what is loaded and what is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.fit.planted import PlantedLaw, isoflop_points
from tests.shell import command, document, environment, sweep
from tests.verbs import forked


def table(directory: Path) -> Path:
    path = directory / "my runs, 2026.csv"
    points = isoflop_points(PlantedLaw(), (1e17, 1e18, 1e19), n_sizes=6, span=4)
    pd.DataFrame(
        [{"n_params": p.n_params, "n_tokens": p.n_tokens, "flops": p.flops, "loss": p.loss} for p in points]
    ).to_csv(path, index=False)
    return path


def test_plan_json_has_the_promised_keys(tmp_path):
    plan = document("plan", "experiment=smoke", f"data_dir={tmp_path / 'a b,c'}", cwd=tmp_path)
    assert set(plan) == {"experiment", "runs", "dropped", "warnings", "hyperparameters", "flops_shared"}
    assert plan["experiment"] == "smoke"
    assert len(plan["runs"]) == 12
    promised = {"run_key", "name", "flops_budget", "flops", "n_params", "n_tokens", "status"}
    for run in plan["runs"]:
        assert promised <= run.keys()
        assert run["status"] == "planned"
        assert abs(run["flops"] / run["flops_budget"] - 1) <= 0.02
    assert list(tmp_path.iterdir()) == []


def test_fit_of_a_table_prints_one_document_and_writes_nothing(tmp_path):
    path = table(tmp_path)
    fit = document("fit", f"points={path}", "fit.n_bootstrap=50", cwd=tmp_path, call=forked)
    assert {"schema_version", "points", "conventions", "methods", "agreement", "backtest"} <= fit.keys()
    assert {"isoflop", "parametric"} <= set(fit["methods"])
    assert {"a", "b", "ci", "E", "A", "B", "alpha", "beta"} <= fit["methods"]["parametric"].keys()
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_fit_predicts(tmp_path):
    done = forked("fit", f"points={table(tmp_path)}", "fit.n_bootstrap=50", "--json", cwd=tmp_path)
    (tmp_path / "fit.json").write_text(done.stdout)
    one = document(
        "predict", "law=fit.json", "flops=1e20", "experiment=isoflop_1gpu", cwd=tmp_path, call=forked
    )
    assert one["flops"] == 1e20
    assert {"n_params_opt", "n_tokens_opt", "loss_opt", "ci", "prediction_interval"} <= one["methods"][
        "parametric"
    ].keys()
    assert {"d_model", "n_layers", "batch_tokens", "n_steps", "lr_peak"} <= one["shape"].keys()
    assert abs(one["shape"]["flops"] / 1e20 - 1) < 0.02
    both = document("predict", "law=fit.json", "flops=[1e20,1e21]", cwd=tmp_path, call=forked)
    assert [answer["flops"] for answer in both] == [1e20, 1e21]
    assert both[0] == one | {"shape": None}  # whose family and rules would it be?


def test_config_prints_what_it_reads_back(tmp_path):
    from omegaconf import OmegaConf

    from sweep.config import read_experiment

    done = sweep("config", "experiment=demo_bytes", "seeds=[0,1]", cwd=tmp_path)
    experiment = read_experiment(OmegaConf.to_container(OmegaConf.create(done.stdout)))
    assert (experiment.name, experiment.seeds) == ("demo_bytes", (0, 1))


REFUSED = [
    (["plan", "budgets=[-1e9]"], "error: budgets=-1000000000.0 is not valid: it should be greater than 0"),
    (["plan", "modle.tied=true"], "error: modle.tied is not a known key: did you mean model.tied"),
    (["run", "experiment=nothing"], "error: experiment=nothing not found: choose from demo"),
    (["run", "grid.d_model=[17]"], "error: d_model=17 does not divide into n_heads=2"),
    (["run", "grid.min_steps=100000"], "error: no cell of the grid can be trained"),
    (["run", "schedule.warmup_frac=1.2"], "error: schedule.warmup_frac=1.2 is not valid"),
    (
        ["run", "schedule.warmup_frac=null", "schedule.warmup_tokens=1e9"],
        "error: schedule.warmup_tokens=1e+09 is a warmup of",
    ),
    (["plan", "demo"], "error: demo is no key=value: did you mean experiment=demo?"),
    (["plan", "budgets=[1e9,"], "error: [1e9, is not valid in Hydra's grammar"),
    (["plan", "seeds=[18446744073709551616]"], "error: seeds=18446744073709551616 is not valid"),
    (["plan", "budgets=[1e308]"], "error: budgets=1e+308 is not valid: it should be less than or equal to"),
    (["run", "trainer.device=cuda"], "error: trainer.device=cuda, and this machine shows no GPU"),
    (["predict", "flops=[]", "law=x"], "error: flops=[] is not valid"),
    (["predict", "flops=1e20"], "error: results/demo has no fit yet"),
    (["fit", "nowhere", "points=x.csv"], "error: nowhere holds no plan"),
    (["status", "nowhere", "seeds=[1]"], "error: nowhere needs no seeds=[1]"),
    (["run", "data_dir=/proc/nowhere"], "error: data_dir=/proc/nowhere cannot be written"),
    (["run", "evaluation.n_tokens=1e9"], "error: evaluation.n_tokens=1,000,000,000 is more than the"),
    (["status", "results/none"], "error: results/none holds no plan"),
    (["status", "a", "b"], "error: a and b are two directories"),
    (["fit", "points=missing.csv"], "error: "),
    (["fit", "nowhere"], "error: nowhere holds no plan"),
    (["predict", "law=nothing.json", "flops=1e20"], "error: law=nothing.json"),
    (["report", "nowhere"], "error: "),
    (["cancel", "nowhere"], "error: nowhere is no directory of a sweep"),
    (["exclude", "nowhere", "../../etc", "--reason", "x"], "error: '../../etc' is not a run key"),
    (["plan", "--config-dir", "nowhere"], "error: --config-dir nowhere is not a directory"),
    (["data", "inspect", "data.holdout_frac=2"], "error: data.holdout_frac=2"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED, ids=lambda value: " ".join(value)[:60])
def test_bad_input_is_one_sentence_exit_2_and_nothing_written(tmp_path, arguments, sentence):
    takes_overrides = arguments[0] not in ("cancel", "exclude", "status", "report")
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
import sys
from sweep.cli.app import main
try:
    main()
except SystemExit as left:
    assert not left.code, left.code
heavy = {"torch", "tokenizers", "safetensors", "datasets"}
loaded = sorted(heavy & {name.partition(".")[0] for name in sys.modules})
assert not loaded, loaded
"""


@pytest.mark.ci
def test_verbs_of_a_laptop_load_no_torch(tmp_path):
    path = table(tmp_path)
    law = forked("fit", f"points={path}", "fit.n_bootstrap=20", "--json", cwd=tmp_path).stdout
    (tmp_path / "fit.json").write_text(law)
    for arguments in (
        ["--help"],
        ["plan"],
        ["plan", "experiment=smoke", "--json"],
        ["config"],
        ["data", "inspect"],
        ["fit", f"points={path}", "fit.n_bootstrap=20"],
        ["predict", "law=fit.json", "flops=1e20"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", TORCH_FREE, *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_our_own_bug_says_so(tmp_path):
    broken = "import sweep.config.compose as c; c.compose_experiments = lambda *a: 1 / 0"
    done = sweep("plan", cwd=tmp_path, before=broken)
    assert done.returncode == 70
    assert "this is a bug in sweep" in done.stderr


def test_command_runs_this_interpreter():
    assert command("plan")[0] == sys.executable
