"""Tests of tables as people have them: encodings, separators, decimal marks, names, units, and selections."""

import codecs
import gzip
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from sweep.config import ColumnsConfig, FitConfig
from sweep.errors import InputError
from sweep.fit import Refusal, Selection, fit, from_dataframe, read_table
from sweep.fit.table.observations import observe
from tests.fit.planted import PlantedLaw

HOFFMANN = PlantedLaw()
BUDGETS = (1e17, 3e17, 1e18, 3e18)
QUICK = FitConfig(n_bootstrap=0, methods=("isoflop", "parametric"))


def grid(budgets=BUDGETS, n_sizes=5):
    """Rows (N, D, C, L) of the planted law under 6 N D, at sizes round each optimum."""
    return [
        (n, budget / (6 * n), budget, HOFFMANN.loss(n, budget / (6 * n)))
        for budget in budgets
        for n in map(float, HOFFMANN.optimum_6nd(budget)[0] * np.geomspace(1 / 3, 3, n_sizes))
    ]


def text(header, rows, separator=","):
    return "\n".join([separator.join(header), *(separator.join(row) for row in rows)]) + "\n"


HEADER = ("n_params", "n_tokens", "flops", "loss")
PLAIN = [tuple(map(repr, row)) for row in grid()]
CSV = text(HEADER, PLAIN)
EUROPEAN = text(HEADER, [[x.replace(".", ",") for x in row] for row in PLAIN], ";")
THOUSANDS = text(HEADER, [[f'"{round(n):,}"', f'"{round(d):,}"', repr(c), repr(x)] for n, d, c, x in grid()])
THIN = text(
    HEADER,
    [[f"{round(n):,}".replace(",", "\u202f"), f"{round(d):,}".replace(",", "\u2009"), repr(c), f"{x}\u00a0"]
     for n, d, c, x in grid()],
)  # fmt: skip
GERMAN = text(
    HEADER,
    [[f"{round(n):,}".replace(",", "."), f"{round(d):,}".replace(",", "."), f"{c:.0e}",
      f"{x:.9f}".replace(".", ",")] for n, d, c, x in grid()],
    ";",
)  # fmt: skip
OBJECTS = [dict(zip(HEADER, map(float, row), strict=True)) for row in PLAIN]

FILES = {
    "plain.csv": CSV.encode(),
    "mark.csv": codecs.BOM_UTF8 + CSV.encode(),
    "unicode.csv": CSV.replace(",", "\t").encode("utf-16"),
    "unmarked.csv": CSV.encode("utf-16-le"),
    "latin.csv": text((*HEADER, "Größe"), [(*row, "groß") for row in PLAIN]).encode("latin-1"),
    "european.csv": EUROPEAN.encode(),
    "german.csv": GERMAN.encode(),
    "runs.tsv": CSV.replace(",", "\t").encode(),
    "bars.txt": CSV.replace(",", "|").encode(),
    "blanks.csv": CSV.replace(",", ", ").encode(),
    "thousands.csv": THOUSANDS.encode(),
    "thin.csv": THIN.encode(),
    "title.csv": b"# published runs\n\n" + CSV.encode(),
    "commented.csv": b"# " + CSV.encode(),
    "crlf.csv": CSV.replace("\n", "\r\n").encode(),
    "index.csv": text(("", *HEADER), [(str(i), *row) for i, row in enumerate(PLAIN)]).encode(),
    "runs.jsonl": "\n".join(map(json.dumps, OBJECTS)).encode(),
    "runs.json": json.dumps(OBJECTS).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_table_reads_the_same_in_every_form(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    table = read_table(path)
    found = [(point.n_params, point.n_tokens, point.flops, point.loss) for point in table]
    assert np.array(found) == pytest.approx(np.array(grid()), rel=1e-6)


MARKS = [  # separator, cells of N, cells of the loss, what they say
    (",", ("1000000", "2000000"), ("3.125", "2.875"), (1e6, 2e6), (3.125, 2.875)),
    (";", ("1000000", "2000000"), ("3.125", "2.875"), (1e6, 2e6), (3.125, 2.875)),
    (";", ("1.000.000", "2.000.000"), ("3,125", "2,875"), (1e6, 2e6), (3.125, 2.875)),
    (";", ("1.000", "2.000"), ("3,1", "2,875"), (1e3, 2e3), (3.1, 2.875)),
    (";", ("1,000,000", "2,000,000"), ("3.125", "2.875"), (1e6, 2e6), (3.125, 2.875)),
    ("\t", ("1,234,567.5", "2e6"), ("3.1", "2.9"), (1234567.5, 2e6), (3.1, 2.9)),
    ("\t", ("1 000 000", "2'000'000"), ("3,1", "2,9"), (1e6, 2e6), (3.1, 2.9)),
    ("\t", ("1,5M", "2M"), ("3,125", "2,875"), (1.5e6, 2e6), (3.125, 2.875)),
    ("|", ("12,34,567", "1.5e6"), ("3", "2"), (1234567, 1.5e6), (3, 2)),
]


@pytest.mark.parametrize(("separator", "sizes", "losses", "n_params", "loss"), MARKS)
def test_marks_of_decimals_and_thousands(tmp_path, separator, sizes, losses, n_params, loss):
    path = tmp_path / "t.csv"
    rows = [(size, "1e9", value) for size, value in zip(sizes, losses, strict=True)]
    path.write_text(text(("n_params", "n_tokens", "loss"), rows, separator))
    table = read_table(path)
    assert tuple(point.n_params for point in table) == pytest.approx(n_params)
    assert tuple(point.loss for point in table) == pytest.approx(loss)


@pytest.mark.parametrize("cell", ["1.2.3", "1,2.3", "12e", "1.2 apples", "1,2,3", "M", "1e6 PF-days"])
def test_what_is_no_number_is_an_error(tmp_path, cell):
    path = tmp_path / "t.tsv"
    path.write_text(f"n_params\tn_tokens\tloss\n1.5e6\t1e9\t3.1\n{cell}\t1e9\t3\n")
    with pytest.raises(InputError, match=r"column 'n_params' has .* in row 2 \(line 3\)"):
        read_table(path)


def test_what_had_to_be_guessed_is_said(tmp_path):
    notes = {}
    for name in ("latin.csv", "title.csv", "plain.csv"):
        path = tmp_path / name
        path.write_bytes(FILES[name])
        notes[name] = read_table(path).notes
    assert notes["latin.csv"] == ("the file is no UTF-8 and is read as Latin-1",)
    assert notes["title.csv"] == ("the lines above the header are skipped: # published runs",)
    assert notes["plain.csv"] == ()


N_D_C_L = grid()[0]
MILLIONS = f"{N_D_C_L[0] / 1e6!r}"
CASES = [
    (("N", "D", "C", "L"), ("{n}", "{d}", "{c}", "{loss}"), 4),
    (("params", "tokens", "FLOPs", "Loss"), ("{n}", "{d}", "{c}", "{loss}"), 4),
    (("Parameters", "Training tokens", "Training FLOPs", "val_loss"), ("{n}", "{d}", "{c}", "{loss}"), 4),
    (("Model Size", "numTokens", "total_flops", "Cross-entropy"), ("{n}", "{d}", "{c}", "{loss}"), 4),
    (("N (M)", "D (B)", "C (PF-days)", "Loss (nats)"), ("{n_m}", "{d_b}", "{c_pf}", "{loss}"), 4),
    (("Params (M)", "Tokens (B)", "GFLOPs", "loss"), ("{n_m}", "{d_b}", "{c_g}", "{loss}"), 3),
    (("params_m", "tokens in billions", "ZFLOPs", "loss [bits]"), ("{n_m}", "{d_b}", "{c_z}", "{bits}"), 4),
    (("n_params", "n_tokens", "flops (1e18)", "perplexity"), ("{n}", "{d}", "{c_e}", "{ppl}"), 2),
    (("n_params", "n_tokens", "PF-days", "val ppl"), ("{n}", "{d}", "{c_pf}", "{ppl}"), 2),
    (HEADER, ("{n_m}M", "{d_b} B", "{c_e}e18", "{loss}"), 0),
    (HEADER, ("{n_m} million", "{d_b} B tokens", "{c_e}×10^18", "{loss}"), 0),
    (HEADER, ("{n_m}m params", "{d_b}b", "{c_pf} PF-days", "{loss} nats"), 0),
    (("N (B)", "D", "C", "L"), ("{n_m}M", "{d_b}B", "{c_z} ZFLOPs", "{loss}"), 4),
]


@pytest.mark.parametrize(("header", "cells", "n_notes"), CASES)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_usual_names_and_units_are_recognised_and_said(tmp_path, header, cells, n_notes, separator):
    path = tmp_path / "t.csv"
    rows = [
        [
            cell.format(
                n=n, d=d, c=c, loss=loss, n_m=n / 1e6, d_b=d / 1e9, c_pf=c / 8.64e19, c_g=c / 1e9,
                c_z=c / 1e21, c_e=c / 1e18, bits=loss / math.log(2), ppl=math.exp(loss),
            )
            for cell in cells
        ]
        for n, d, c, loss in grid()
    ]  # fmt: skip
    path.write_text(text(header, rows, separator))
    table = read_table(path)
    found = [(point.n_params, point.n_tokens, point.flops, point.loss) for point in table]
    assert np.array(found) == pytest.approx(np.array(grid()), rel=1e-9)
    assert len(table.notes) == n_notes


def test_notes_name_the_column_the_field_and_the_unit(tmp_path):
    frame = pd.DataFrame({"Params (M)": [20.0], "tokens": [1e9], "C (PF-days)": [0.0014], "ppl": [20.0]})
    assert from_dataframe(frame).notes == (
        'column "Params (M)" read as n_params in millions',
        'column "tokens" read as n_tokens',
        'column "C (PF-days)" read as flops in PF-days',
        'column "ppl" read as loss, by its natural logarithm',
    )


def test_two_candidates_are_refused_and_a_named_column_wins():
    frame = pd.DataFrame({"Model Size": [2e7], "params": [3e7], "D": [1e9], "loss": [3.0]})
    with pytest.raises(
        InputError, match='columns "Model Size" and "params" could all be n_params: choose one'
    ):
        from_dataframe(frame)
    (point,) = from_dataframe(frame, ColumnsConfig(n_params="params"))
    assert point.n_params == 3e7
    frame = frame.drop(columns="params").rename(columns={"Model Size": "Größe (M)"})
    (point,) = from_dataframe(frame.assign(**{"Größe (M)": 20}), ColumnsConfig(n_params="Größe (M)"))
    assert point.n_params == 2e7


def test_the_fields_own_names_win_over_usual_ones():
    frame = pd.DataFrame(
        {"n_params": [2e7], "params": ["?"], "n_tokens": [1e9], "tokens": [5], "loss": [3.0]}
    )
    table = from_dataframe(frame)
    assert (table[0].n_params, table[0].n_tokens, table.notes) == (2e7, 1e9, ())
    held_out = pd.DataFrame({"N": [2e7], "D": [1e9], "train_loss": [2.5], "eval_loss": [3.0]})
    assert from_dataframe(held_out)[0].loss == 3.0
    texts = pd.DataFrame({"N": [2e7], "D": [1e9], "data": ["web"], "size": ["small"], "loss": [3.0]})
    assert from_dataframe(texts)[0].n_tokens == 1e9


def test_columns_that_only_resemble_a_field_are_not_taken():
    frame = pd.DataFrame(
        {"N": [2e7], "n": [1], "d": [512], "D": [1e9], "flops_per_token": [1e8], "loss": [3.0],
         "loss_stderr": [9], "params_embedding": [5e6], "tokens_per_second": [1e5],
         "non-embedding params": [1.5e7], "unique tokens": [7e8]}
    )  # fmt: skip
    (point,) = from_dataframe(frame)
    assert (point.n_params, point.n_tokens, point.flops, point.loss) == (2e7, 1e9, None, 3.0)
    assert (point.n_params_non_embedding, point.n_tokens_unique) == (1.5e7, 7e8)


def test_a_factor_and_a_logarithm_can_be_named():
    frame = pd.DataFrame({"size": [20], "D": [1e9], "score": [20.0]})
    columns = ColumnsConfig(n_params="size*1e6", loss="ln(score)")
    (point,) = from_dataframe(frame, columns)
    assert (point.n_params, point.loss) == (2e7, pytest.approx(math.log(20)))


def test_statuses_of_other_tools_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("n_params,n_tokens,loss,state\n1e6,1e8,3,finished\n2e6,1e8,,diverged\n")
    assert [point.status for point in read_table(path, ColumnsConfig(status="state"))] == ["done", "diverged"]
    path.write_text("n_params,n_tokens,loss,status\n1e6,1e8,3,finished\n2e6,1e8,4,crashed\n")
    with pytest.raises(InputError, match=r"status='crashed' in row 2 \(line 3\).*--where 'status =="):
        read_table(path)
    assert len(read_table(path, selection=Selection(where='status == "finished"'))) == 1


EXPERIMENTS = pd.DataFrame(
    {
        "experiment": ["x", "y", "x", "y", ""],
        "lr (peak)": [0.1, 0.2, 0.3, None, 0.1],
        "Params (M)": [10, 20, 30, 40, 50],
        "tokens": [1e9] * 5,
        "loss": [3.5, 3.4, 3.3, 3.2, 3.1],
        "done": [True, True, False, True, True],
    }
)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ('experiment == "x"', [1, 3]),
        ('experiment != "x"', [2, 4]),
        ('experiment in ["x", "z"] and loss < 3.4', [3]),
        ('experiment not in ["x"]', [2, 4]),
        ("not (loss > 3.2 or loss < 3.15)", [4]),
        ("`lr (peak)` >= 0.2", [2, 3]),
        ("2e7 < n_params <= 4e7", [3, 4]),
        ("`Params (M)` == 20", [2]),
        ("done == False", [3]),
        ("loss > -1 and 3.3 >= loss", [3, 4, 5]),
    ],
)
def test_where_selects_rows(expression, rows):
    table = from_dataframe(EXPERIMENTS, selection=Selection(where=expression))
    assert [point.n_params / 1e7 for point in table] == rows
    assert table.rows == tuple(f"row {row}" for row in rows)
    assert f"--where selects {len(rows)} of 5 rows" in table.notes


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')", "experiment", "loss + 1 > 3", "loss.real > 1",
        "(lambda: 1)() == 1", "loss > ", "experiment is 'x'", "experiment in 'xyz'", "[x for x in (1,)] == 1",
        "loss == None", "", "f'{loss}' == 'x'", "loss := 3",
    ],
)  # fmt: skip
def test_where_takes_comparisons_only(expression):
    with pytest.raises(InputError, match=r"--where .* is invalid"):
        from_dataframe(EXPERIMENTS, selection=Selection(where=expression))


def test_where_names_unknown_columns_and_empty_selections():
    with pytest.raises(InputError, match=r"column 'x' not found among experiment, .*quotes"):
        from_dataframe(EXPERIMENTS, selection=Selection(where="experiment == x"))
    with pytest.raises(InputError, match="selects none of 5 rows"):
        from_dataframe(EXPERIMENTS, selection=Selection(where="loss > 10"))


def test_incomplete_rows_are_refused_with_their_line_or_dropped_and_counted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("n_params,n_tokens,loss\n1e6,1e8,3\n2e6,1e8,NaN\n4e6,1e8,inf\n5e6,1e8,2.9\n3e6,,3\n")
    with pytest.raises(
        InputError,
        match=r"'n_tokens' has no value in row 5 \(line 6\).*: remove such rows, or use sweep fit",
    ):
        read_table(path)
    path.write_text(path.read_text().replace(",,", ",1e7,"))
    with pytest.raises(InputError, match=r"'loss' has 'NaN' in row 2 \(line 3\).*: remove such rows, or"):
        read_table(path)
    path.write_text(path.read_text().replace(",1e7,", ",,"))
    table = read_table(path, selection=Selection(drop_incomplete=True))
    assert [point.n_params for point in table] == [1e6, 5e6]
    assert table.notes == ("dropped 3 incomplete rows",)
    assert table.rows == ("row 1 (line 2)", "row 4 (line 5)")
    path.write_text("n_params,n_tokens,loss\n1e6,1e8,3\n2e6,1e8,three\n")
    with pytest.raises(InputError, match="'three' in row 2"):
        read_table(path, selection=Selection(drop_incomplete=True))


def test_arms_are_fitted_alone_or_by_the_best_run_of_each_cell():
    rows = [(*row[:3], row[3] * factor, arm) for arm, factor in (("a", 1.0), ("b", 1.001)) for row in grid()]
    frame = pd.DataFrame(rows, columns=[*HEADER, "arm"])
    assert {law.kind for law in fit(from_dataframe(frame), QUICK).methods.values()} == {"mixed_arms"}
    alone = from_dataframe(frame, selection=Selection(where='arm == "b"'))
    assert {point.arm for point in alone} == {"b"}
    best = from_dataframe(frame, selection=Selection(best_of_cell=True))
    assert best.notes[-1] == "kept 20 of 40 rows, the lowest loss of each N and D in any arm"
    for table in (alone, best):
        assert not isinstance(fit(table, QUICK).methods["parametric"], Refusal)


def test_the_best_of_each_cell_is_kept():
    frame = pd.DataFrame(
        {
            "N": [1e6, 1e6, 2e6, 1e6],
            "D": [1e8, 1e8, 1e8, 2e8],
            "loss": [3.2, 3.1, 3.0, 3.0],
            "lr": [1, 2, 1, 1],
        }
    )
    table = from_dataframe(frame, selection=Selection(best_of_cell=True))
    assert [(point.n_params, point.n_tokens, point.loss) for point in table] == [
        (1e6, 1e8, 3.1),
        (2e6, 1e8, 3.0),
        (1e6, 2e8, 3.0),
    ]
    assert table.extras == {"lr": (2, 1, 1)}
    assert "kept 3 of 4 rows, the lowest loss of each N and D" in table.notes


def test_the_budget_is_the_cost_where_no_flops_are_given():
    """The budgets count 1.2 to 1.9 times 6 N D, as with an attention cost that falls with N."""

    def per_token(n):
        return 6 * n * (1.2 + 0.7 * (1e7 / n) ** 0.5)

    rows = []
    for budget in (1e16, 6e16, 3.6e17, 2e18):
        best = HOFFMANN.optimum_by_search(budget, per_token)
        rows += [(n, budget / per_token(n), budget) for n in best * np.geomspace(0.4, 2.5, 7)]
    frame = pd.DataFrame(rows, columns=["params", "tokens", "budget"])
    frame["loss"] = [HOFFMANN.loss(n, d) for n, d, _ in rows]
    table = from_dataframe(frame)
    assert 'C is read from the budgets in column "budget", which differ from 6 N D' in table.notes
    assert [point.flops for point in table] == frame.budget.tolist()
    law = fit(table, QUICK).methods["isoflop"]
    sizes = [HOFFMANN.optimum_by_search(c, per_token) for c in (1e16, 2e18)]
    assert law.exponents[0] == pytest.approx(math.log(sizes[1] / sizes[0]) / math.log(200), abs=0.02)
    named = frame.rename(columns={"budget": "flops"})
    assert fit(named, QUICK).methods["isoflop"].exponents[0] == pytest.approx(law.exponents[0], rel=1e-9)


def test_budgets_that_are_six_n_d_leave_the_constraint():
    frame = pd.DataFrame(grid(), columns=["n_params", "n_tokens", "flops_budget", "loss"])
    table = from_dataframe(frame)
    assert table.notes == ()
    assert observe(table).flops_per_token.kind == "6nd"
    without_tokens = from_dataframe(frame.drop(columns="n_tokens"))
    assert np.sort(observe(without_tokens).n_tokens) == pytest.approx(np.sort(observe(table).n_tokens))


def test_millions_and_billions_are_refused_once_with_their_factors_and_read_with_them():
    frame = pd.DataFrame(grid(), columns=[*HEADER]).drop(columns="flops")
    small = frame.assign(n_params=frame.n_params / 1e6, n_tokens=frame.n_tokens / 1e9)
    refusal = observe(from_dataframe(small)).refusal
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "units"
    assert "n_params=9.495 of row 1 and of 19 more rows looks like millions" in refusal.reason
    assert '--column n_params="n_params*1e6" --column n_tokens="n_tokens*1e9"' in refusal.reason
    read = from_dataframe(small, ColumnsConfig(n_params="n_params*1e6", n_tokens="n_tokens*1e9"))
    assert observe(read).refusal is None
    assert [point.n_params for point in read] == pytest.approx(frame.n_params.tolist())
    assert set(fit(small, QUICK).methods.values()) == {refusal}


@pytest.mark.parametrize(
    ("factor", "unit", "remedy"),
    [
        (1e9, "GFLOPs", 'flops="flops*1e9"'),
        (1e15, "PFLOPs", 'flops="flops*1e15"'),
        (1e21, "ZFLOPs", 'flops="flops*1e21"'),
        (8.64e19, "PF-days", 'flops="flops*8.64e19"'),
    ],
)
def test_other_units_of_compute_are_named(factor, unit, remedy):
    frame = pd.DataFrame(grid((1e13, 3e13, 1e14)), columns=[*HEADER])
    refusal = observe(from_dataframe(frame.assign(flops=frame.flops / factor))).refusal
    assert refusal.kind == "units"
    assert f"looks like {unit}" in refusal.reason
    assert remedy in refusal.reason


def test_perplexities_and_bits_are_no_losses_in_nats():
    frame = pd.DataFrame(grid(), columns=[*HEADER])
    refusal = observe(from_dataframe(frame.assign(loss=np.exp(frame.loss)))).refusal
    assert refusal.kind == "units"
    assert "looks like a perplexity: its logarithm is a loss of 4.4" in refusal.reason
    assert '--column loss="ln(loss)"' in refusal.reason
    bits = from_dataframe(frame.assign(loss=frame.loss / math.log(2), vocab_size=64))
    assert "is above ln(vocab_size) = 4.159 nats" in observe(bits).refusal.reason
    assert observe(from_dataframe(frame.assign(vocab_size=256))).refusal is None


def test_one_row_in_another_unit_is_named():
    frame = pd.DataFrame(grid(), columns=[*HEADER]).drop(columns="flops")
    frame.loc[6, "n_params"] /= 1e6
    refusal = observe(from_dataframe(frame)).refusal
    assert refusal.kind == "units"
    assert "of row 7 looks like millions: convert these rows" in refusal.reason


def test_tiny_models_are_no_other_unit():
    frame = pd.DataFrame({"n_params": [3e3, 1e4, 3e4], "n_tokens": [640, 5e3, 1e5], "loss": [4.1, 3.9, 3.0]})
    assert observe(from_dataframe(frame)).refusal is None


def mixed(names, factor, seeds=1):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            (
                kind,
                n,
                d,
                HOFFMANN.loss(n, d) * factor**at * math.exp(0.002 * rng.standard_normal()),
                at,
                100 + i,
            )
            for at, kind in enumerate(names)
            for i, (n, d) in enumerate((n, d) for n in (8e6, 2.5e7, 8e7) for d in (2e8, 8e8, 3.2e9))
            for _ in range(seeds)
        ],
        columns=["data set", "n_params", "n_tokens", "loss", "seed", "run"],
    )


def test_a_column_that_differs_inside_cells_is_named():
    refusal = observe(from_dataframe(mixed(("web", "code"), 0.75))).refusal
    assert refusal.kind == "mixed_data"
    assert (
        "runs of equal N and D differ by 20% in loss, and in column 'data set' (code, web)" in refusal.reason
    )
    assert "--where '`data set` == \"code\"'" in refusal.reason
    alone = Selection(where='`data set` == "code"')
    assert observe(from_dataframe(mixed(("web", "code"), 0.75), selection=alone)).refusal is None


def test_replicates_are_no_mixture():
    table = from_dataframe(mixed(("web", "code"), 0.999))
    assert (observe(table).refusal, observe(table).warnings) == (None, ())
    frame = mixed(("web", "web"), 0.8).drop(columns="data set")  # they differ by their seed alone
    seen = observe(from_dataframe(frame))
    assert seen.refusal is None
    (warning,) = seen.warnings
    assert "runs of equal N and D differ by 16% in loss" in warning


def test_labels_of_noisy_replicates_are_seldom_taken_for_a_setting():
    rng, n_refused = np.random.default_rng(1), 0
    for _ in range(100):
        rows = [(n, 1e9, HOFFMANN.loss(n, 1e9) * math.exp(0.05 * rng.standard_normal()), replicate)
                for n in (8e6, 2.5e7, 8e7) for replicate in (0, 1)]  # fmt: skip
        frame = pd.DataFrame(rows, columns=["n_params", "n_tokens", "loss", "replicate"])
        n_refused += observe(from_dataframe(frame)).refusal is not None
    assert n_refused <= 1


def test_reading_a_file_does_not_import_pandas(tmp_path):
    import subprocess
    import sys

    path = tmp_path / "t.csv"
    path.write_text(CSV)
    code = f"import sys, sweep; sweep.read_table({str(path)!r}); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_compressed_text_is_read_and_a_spreadsheet_is_refused_with_the_remedy(tmp_path):
    content = text(("n_params", "n_tokens", "loss"), [("1e6", "2e7", "3.5"), ("2e6", "4e7", "3.2")]).encode()
    path = tmp_path / "runs.csv.gz"
    path.write_bytes(gzip.compress(content))
    assert [point.n_params for point in read_table(path)] == [1e6, 2e6]
    shutil.copy(path, tmp_path / "named.csv")
    assert [point.n_params for point in read_table(tmp_path / "named.csv")] == [1e6, 2e6]
    (tmp_path / "nul.csv").write_bytes(content.replace(b"3.5", b"3.\x005"))
    with pytest.raises(InputError, match="it is a binary file or has a byte 0"):
        read_table(tmp_path / "nul.csv")
    path.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(InputError, match="cannot read it as csv"):
        read_table(path)
    with pytest.raises(InputError, match="save its sheet as CSV"):
        read_table(tmp_path / "runs.xlsx")
    with pytest.raises(InputError, match=r"unknown suffix '\.parquet\.gz'"):
        read_table(tmp_path / "runs.parquet.gz")
