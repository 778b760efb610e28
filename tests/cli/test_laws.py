"""The verbs fit and predict from the command line: documents, exit codes, and what they never write."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token


def sweep(tmp_path, *arguments):
    program = (
        "import sys; from sweep.cli.app import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    points = isoflop_points(
        TINY,
        tuple(np.geomspace(1e11, 6.4e12, 4)),
        n_sizes=6,
        span=3,
        flops_per_token=tiny_flops_per_token,
        sd=0.003,
        rng=np.random.default_rng(0),
    )
    path = tmp_path_factory.mktemp("a b=c") / "points, of 'mine'.csv"
    rows = [{"Model Size": p.n_params, "D": p.n_tokens, "C": p.flops, "loss": p.loss} for p in points]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


COLUMNS = ("columns.n_params='Model Size'", "columns.n_tokens=D", "columns.flops=C", "fit.n_bootstrap=80")


def test_fit_then_predict_from_the_saved_document(tmp_path, table):
    fitted = sweep(tmp_path, "fit", f"points={table}", *COLUMNS, "reconcile=true", "--json")
    assert fitted.returncode == 0, fitted.stderr
    assert fitted.stderr.strip() == "False"  # torch was never imported
    document = json.loads(fitted.stdout)
    assert document["backtest"]["n_left_out"] == 6
    assert document["reconcile"]["rows"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "law.json").write_text(fitted.stdout)
    family = ("experiment=demo",)  # whose shapes and rules the concrete run follows
    told = sweep(
        tmp_path, "predict", "law=law.json", *family, "flops=[1e13,3e13]", "inference_tokens=1e9", "--json"
    )
    assert told.returncode == 0, told.stderr
    near, far = json.loads(told.stdout)
    assert (near["flops"], far["flops"]) == (1e13, 3e13)
    parametric = far["methods"]["parametric"]
    low, high = parametric["ci"]["n_params_opt"]
    assert low < parametric["n_params_opt"] < high
    assert parametric["lifetime"]["n_params"] < parametric["n_params_opt"]
    assert {"d_model", "n_layers", "batch_tokens", "lr_peak", "n_steps"} <= far["shape"].keys()
    shown = sweep(tmp_path, "predict", "law=law.json", "flops=1e13")
    assert "backtest: relative errors at the held-out budgets" in shown.stderr
    assert far["beyond_data"] == pytest.approx(3e13 / 6.4e12)


def test_people_read_the_same_on_a_terminal(tmp_path, table):
    shown = sweep(tmp_path, "fit", f"points={table}", *COLUMNS)
    assert shown.returncode == 0, shown.stderr
    for part in ("isoflop", "estimated bias", "optimum by method", "backtest: relative errors"):
        assert part in shown.stderr


def test_published_laws_predict_by_name_and_unknown_ones_are_bad_input(tmp_path):
    told = sweep(tmp_path, "predict", "law=besiroglu_2024", "flops=5.76e23", "--json")
    document = json.loads(told.stdout)
    assert document["methods"]["besiroglu_2024"]["tokens_per_param_opt"] == pytest.approx(17.921, abs=1e-3)
    unknown = sweep(tmp_path, "predict", "law=chinchilla", "flops=1e20")
    assert unknown.returncode == 2
    assert "kaplan_2020" in unknown.stderr
    missing = sweep(tmp_path, "predict", "law=absent.json", "flops=1e20")
    assert (missing.returncode, "no such file" in missing.stderr) == (2, True)


def test_when_every_method_refuses_the_exit_code_is_zero_and_the_json_says_why(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("n_params,n_tokens,loss\n1e6,1e8,3\n2e6,1e8,2.9\n")
    told = sweep(tmp_path, "fit", f"points={path}", "--json")
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert all("refused" in method for method in document["methods"].values())
    assert "refused" in document["backtest"]
    path.write_text("n_params,n_tokens,loss\n1e6,1e8,-3\n")
    assert sweep(tmp_path, "fit", f"points={path}").returncode == 2
