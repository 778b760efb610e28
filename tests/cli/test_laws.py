"""The verbs fit and predict: documents, exit codes and files written."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest

from sweep.config import FitConfig
from sweep.config.compose import compose_experiment
from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token
from tests.verbs import forked


def sweep(tmp_path, *arguments):
    return forked(*arguments, cwd=tmp_path)


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


COLUMNS = (
    *("--column", "n_params=Model Size", "--column", "n_tokens=D", "--column", "flops=C"),
    "fit.n_bootstrap=40",
    "fit.methods=[isoflop,parametric]",
)


def test_fit_then_predict_from_the_saved_document(tmp_path, table):
    fitted = sweep(tmp_path, "fit", table, *COLUMNS, "--reconcile", "--json")
    assert fitted.returncode == 0, fitted.stderr
    document = json.loads(fitted.stdout)
    assert document["backtest"]["n_left_out"] == 6
    assert document["reconcile"]["rows"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "law.json").write_text(fitted.stdout)
    family = ("experiment=demo",)
    done = sweep(
        tmp_path, "predict", "law.json", "1e13", "3e13", *family, "--inference-tokens", "1e9", "--json"
    )
    assert done.returncode == 0, done.stderr
    near, far = json.loads(done.stdout)
    assert (near["flops"], far["flops"]) == (1e13, 3e13)
    parametric = far["methods"]["parametric"]
    low, high = parametric["ci"]["n_params_opt"]
    assert low < parametric["n_params_opt"] < high
    assert parametric["lifetime"]["n_params"] < parametric["n_params_opt"]
    assert {"d_model", "n_layers", "batch_tokens", "lr_peak", "n_steps"} <= far["shape"].keys()
    assert far["shape"]["method"] == "answer"
    answer = far["answer"]
    assert answer["ci"]["loss_opt"][0] < answer["loss_opt"] < answer["ci"]["loss_opt"][1]
    shown = sweep(tmp_path, "predict", "law.json", "1e13")
    assert shown.stdout.startswith("at C = 1e13 FLOPs train N = ")
    verbose = sweep(tmp_path, "predict", "law.json", "1e13", "--verbose")
    assert "backtest: relative errors at the held-out budgets" in verbose.stdout
    assert far["beyond_data"] == pytest.approx(3e13 / 6.4e12)


def test_a_fit_as_text_shows_bias_agreement_and_backtest(tmp_path, table):
    shown = sweep(tmp_path, "fit", table, *COLUMNS, "--verbose")
    assert shown.returncode == 0, shown.stderr
    for part in ("isoflop", "estimated bias", "optimum by method", "backtest: relative errors"):
        assert part in shown.stdout


def test_published_laws_predict_and_unknown_ones_are_refused(tmp_path):
    done = sweep(tmp_path, "predict", "besiroglu_2024", "5.76e23", "--json")
    document = json.loads(done.stdout)
    assert document["methods"]["besiroglu_2024"]["tokens_per_param_opt"] == pytest.approx(17.921, abs=1e-3)
    unknown = sweep(tmp_path, "predict", "chinchilla", "1e20")
    assert unknown.returncode == 2
    assert "besiroglu_2024" in unknown.stderr
    listed = sweep(tmp_path, "laws", "--json")
    rows = {row["name"]: row for row in json.loads(listed.stdout)["laws"]}
    assert rows["besiroglu_2024"]["a"] == pytest.approx(0.513, abs=1e-3)
    missing = sweep(tmp_path, "predict", "absent.json", "1e20")
    assert (missing.returncode, "absent.json not found" in missing.stderr) == (2, True)


def test_a_multiple_is_one_of_the_largest_fitted_budget(tmp_path, table):
    from_table = sweep(
        tmp_path, "predict", table, "10x", "fit.n_bootstrap=50", "fit.methods=[isoflop]", "--json"
    )
    assert from_table.returncode == 0, from_table.stderr
    document = json.loads(from_table.stdout)
    assert document["beyond_data"] == pytest.approx(10, rel=0.01)
    published = sweep(tmp_path, "predict", "besiroglu_2024", "0.5x", "--json")
    assert json.loads(published.stdout)["flops"] == pytest.approx(6.5e21)


def test_a_fit_that_every_method_refuses_succeeds_with_reasons(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("n_params,n_tokens,loss\n1e6,1e8,3\n2e6,1e8,2.9\n")
    done = sweep(tmp_path, "fit", path, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert all("refused" in method for method in document["methods"].values())
    assert "refused" in document["backtest"]
    path.write_text("n_params,n_tokens,loss\n1e6,1e8,-3\n")
    assert sweep(tmp_path, "fit", path).returncode == 2


def test_what_was_recognised_and_selected_goes_to_stderr(tmp_path, table):
    frame = pd.read_csv(table)
    scaled = frame.assign(**{"Params (M)": frame["Model Size"] / 1e6, "set": "x"}).drop(columns="Model Size")
    other = scaled.assign(set="y", loss=scaled.loss * 1.3)
    path = tmp_path / "two.csv"
    pd.concat([scaled, other]).to_csv(path, index=False, sep=";", decimal=",")
    done = sweep(tmp_path, "fit", path, "--where", 'set == "x"', *COLUMNS[6:], "--json")
    assert done.returncode == 0, done.stderr
    assert 'column "Params (M)" read as n_params in millions\n' in done.stderr
    assert "--where selects 24 of 48 rows\n" in done.stderr
    named = sweep(tmp_path, "fit", table, *COLUMNS, "--json")
    found, expected = (json.loads(result.stdout)["methods"]["parametric"]["a"] for result in (done, named))
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_table_of_optima_prints_its_power_law(tmp_path):
    path = tmp_path / "optima.csv"
    path.write_text("C (PF-days),N_opt\n0.01,16M\n0.1,50M\n1,160M\n10,500M\n")
    shown = sweep(tmp_path, "fit", path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("4 optima from C = 8.64e+17 to 8.64e+20 FLOPs\nN_opt = ")
    document = json.loads(sweep(tmp_path, "fit", path, "--json").stdout)
    assert document["laws"]["N_opt"]["exponent"] == pytest.approx(0.499, abs=0.001)


def test_the_loss_of_a_run_and_the_limit_of_distance(tmp_path, table):
    (tmp_path / "law.json").write_text(sweep(tmp_path, "fit", table, *COLUMNS, "--json").stdout)
    size = ("--n-params", "5e4", "--n-tokens", "2e8")
    found = json.loads(sweep(tmp_path, "predict", "law.json", *size, "--json").stdout)
    low, high = found["loss_prediction_interval"]
    assert low < TINY.loss(5e4, 2e8) < high
    assert "by parametric" in sweep(tmp_path, "predict", "law.json", *size).stdout
    for wrong in (size[:2], (*size, "1e13"), ("--n-params", "-1", "--n-tokens", "1e9")):
        assert sweep(tmp_path, "predict", "law.json", *wrong).returncode == 2
    far = sweep(tmp_path, "predict", "law.json", "1e21")
    assert "no answer: 1e21 FLOPs are" in far.stdout
    assert far.stdout.count("fit.max_reach=300") == 1
    raised = sweep(tmp_path, "predict", "law.json", "1e16", "fit.max_reach=1e4")
    assert raised.stdout.startswith(("at C = 1e16", "no answer: 1e16 FLOPs are too far"))


def test_settings_without_overrides_are_those_of_the_default_experiment():
    assert compose_experiment().fit == FitConfig()


def test_imported_runs_without_an_answer_have_no_next_command(tmp_path):
    (tmp_path / "few.csv").write_text("n_params,n_tokens,flops,loss\n1e6,1e8,6e14,3\n2e6,1e8,1.2e15,2.9\n")
    imported = sweep(tmp_path, "import", "few.csv", "--into", "results/few")
    assert imported.returncode == 0, imported.stderr
    done = sweep(tmp_path, "fit", "results/few")
    assert "no answer: " in done.stdout
    assert "next: " not in done.stdout


def test_an_empty_path_is_not_the_working_directory(tmp_path, table):
    done = sweep(tmp_path, "import", table, "--into", "", *COLUMNS[:6])
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "an empty path is given: give the path of a file or directory" in done.stderr


def test_imported_arms_are_fitted_compared_and_predicted_from_like_those_of_a_sweep(tmp_path, table):
    quick = ("fit.n_bootstrap=20", "fit.methods=[isoflop]")
    for arm in ("adamw", "muon"):
        done = sweep(tmp_path, "import", table, "--into", "both", "--arm", arm, *COLUMNS[:6])
        assert done.returncode == 0, done.stderr
    fitted = sweep(tmp_path, "fit", "both", *quick)
    assert {"arm adamw", "arm muon"} <= set(fitted.stdout.splitlines())
    assert (tmp_path / "both/arms/muon/fit.json").is_file()
    assert "choose one with --arm NAME, from " in sweep(tmp_path, "predict", "both", "1e13").stderr
    predicted = sweep(tmp_path, "predict", "both", "1e13", "--arm", "muon")
    assert predicted.stdout.startswith("at C = 1e13 FLOPs train N = "), predicted.stderr
    compared = sweep(tmp_path, "compare", "both:adamw", "both:muon")
    assert compared.stdout.startswith("B = muon over A = adamw"), compared.stderr


def test_a_table_is_fitted_and_predicted_from(tmp_path, table):
    quick = ("fit.n_bootstrap=50", "fit.methods=[isoflop]")
    asked = sweep(tmp_path, "predict", str(table), "2e13", *quick, "--where", "n_params > 1", "--json")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["answer"]["n_params_opt"] > 0
    far = sweep(tmp_path, "predict", str(table), "1e20", *quick, "--where", "n_params > 1", "--json")
    (nearer,) = json.loads(far.stdout)["next"]
    assert shlex.split(nearer) == ["sweep", "predict", str(table), "300x", "--where", "n_params > 1"]
    again = sweep(tmp_path, *shlex.split(nearer)[1:], *quick, "--json")
    assert "refused" not in json.loads(again.stdout)["answer"]
    refused = sweep(tmp_path, "predict", "besiroglu_2024", "1e21", "--where", "loss < 3")
    assert refused.returncode == 2
    assert "--column and --where are about" in refused.stderr


def test_multiples_count_from_the_largest_budget_with_a_minimum(tmp_path, table):
    """Also where runs of a larger budget have no minimum: the farthest multiple allowed is not refused."""
    rows = pd.read_csv(table)
    few = rows[rows["C"] > 5e12].nsmallest(2, "Model Size")
    pd.concat([rows[rows["C"] < 5e12], few]).to_csv(tmp_path / "few.csv", index=False)
    done = sweep(tmp_path, "predict", "few.csv", "300x", *COLUMNS, "--json")
    document = json.loads(done.stdout)
    assert document["beyond_data"] == pytest.approx(300)
    assert document["flops"] < 300 * 2e12
    assert "refused" not in document["answer"]


def test_a_path_that_is_not_there_names_those_near_it(tmp_path, table):
    for name in ("demo", "mine", "minor"):
        (tmp_path / "results" / name / "runs").mkdir(parents=True)
    for arguments in (
        ("predict", "results/mina", "1e14"),
        ("fit", "results/mina"),
        ("report", "results/mina"),
    ):
        done = sweep(tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stderr.rstrip().endswith("give one of results/mine, results/minor, results/demo")
    assert "did you mean results/mine?" in sweep(tmp_path, "predict", "mine", "1e14").stderr
    missing = sweep(table.parent, "fit", "nothere.csv")
    assert missing.stderr == f"error: nothere.csv not found: give one of {table.name}\n"


def test_what_is_no_table_or_sweep_names_the_verb_or_file_for_it(tmp_path, table):
    document = sweep(tmp_path, "fit", table, *COLUMNS, "--json").stdout
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "fit.json").write_text(document)
    (tmp_path / "saved" / "points.csv").write_bytes(table.read_bytes())
    law = sweep(tmp_path, "fit", "saved/fit.json")
    assert law.stderr == (
        "error: saved/fit.json is a fit, not a table: ask it with sweep predict saved/fit.json 10x\n"
    )
    for verb in ("fit", "report", "status"):
        refused = sweep(tmp_path, verb, "saved")
        assert refused.returncode == 2
        assert "only their table: give saved/points.csv" in refused.stderr
    assert "give one of saved\n" in sweep(tmp_path, "predict", "./savd", "1e13").stderr
