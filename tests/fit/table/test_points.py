"""Tests of reading tables of points, and of the error message for each invalid table."""

import dataclasses

import pandas as pd
import pytest

from sweep.errors import InputError
from sweep.fit import DEFAULT_COLUMNS, from_dataframe, read_table

GOOD = {"n_params": [1e6, 2e6], "n_tokens": [1e9, 5e8], "loss": [3.1, 3.0]}


def write(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_csv_and_parquet_give_the_same_points(tmp_path, suffix):
    frame = pd.DataFrame(
        {
            **GOOD,
            "flops": [6e15, 6.5e15],
            "flops_budget": [6e15, None],
            "status": ["done", "diverged"],
            "run_key": ["12345678e1234567", "0000000000000001"],
            "seed": [0, 1],
            "corpus_sha256": ["a" * 64, "a" * 64],
            "remark": ["kept", "out"],
        }
    )
    path = tmp_path / f"points.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    first, second = read_table(path)
    assert (first.n_params, first.n_tokens, first.flops, first.loss) == (1e6, 1e9, 6e15, 3.1)
    assert (first.run_key, first.seed, first.corpus_sha256) == ("12345678e1234567", 0, "a" * 64)
    assert (first.flops_budget, second.flops_budget) == (6e15, None)
    assert (first.status, second.status) == ("done", "diverged")


def test_columns_are_renamed(tmp_path):
    path = write(tmp_path, "Model Size,Training FLOP,loss\n1e6,6e15,3.0\n")
    columns = dataclasses.replace(DEFAULT_COLUMNS, n_params="Model Size", flops="Training FLOP")
    (point,) = read_table(path, columns)
    assert (point.n_params, point.flops, point.n_tokens) == (1e6, 6e15, None)


def test_a_diverged_run_may_lack_its_loss(tmp_path):
    path = write(tmp_path, "n_params,n_tokens,loss,status\n1e6,1e9,,diverged\n")
    assert read_table(path)[0].loss is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "n_params,loss\n1,2\n",
            ["no column for n_tokens or flops among n_params, loss", "--column n_tokens=NAME"],
        ),
        ("n_tokens,loss\n1,2\n", ["no column for n_params", "--column n_params=NAME"]),
        ("n_params,n_tokens\n1,2\n", ["no column for loss", "--column loss=NAME"]),
        (
            "n_params,n_tokens,Eval loss\n1e6,1e8,3.1%\n1e7,1e8,2.9%\n",
            ["'Eval loss' has '3.1%' in row 1 (line 2), not a number", "--column loss=NAME"],
        ),
        ("n_params,n_tokens,loss\n", ["no rows"]),
        (
            "n_params,n_tokens,loss\n1,2,3\n1,2,nan\n",
            ["'loss'", "'nan' in row 2 (line 3)", "--drop-incomplete"],
        ),
        ("n_params,n_tokens,loss\n1,2,inf\n", ["'loss'", "'inf'", "row 1"]),
        ("n_params,n_tokens,loss\n0,2,3\n", ["'n_params'", "'0'", "row 1", "above zero"]),
        ("n_params,n_tokens,loss\n1,-2,3\n", ["'n_tokens'", "'-2'"]),
        ("n_params,n_tokens,loss\n1,many,3\n", ["'n_tokens'", "'many'"]),
        (
            "n_params,n_tokens,loss,status\n1,2,3,lost\n",
            ["status='lost'", "row 1", "done, finished or diverged", "--where", "--column status"],
        ),
        ("n_params,n_tokens,loss,flops_budget\n1,2,3,-1\n", ["'flops_budget'", "'-1'"]),
        ("", ["cannot read it as csv"]),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tmp_path, text, parts):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_table(path)
    message = str(error.value)
    assert "\n" not in message
    for part in [str(path), *parts]:
        assert part in message


def test_missing_files_suffixes_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="file not found"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="save its sheet as CSV, and fit that"):
        read_table(write(tmp_path, "", "t.xlsx"))
    with pytest.raises(InputError, match=r"save the table as one of \.csv, .*\.parquet"):
        read_table(write(tmp_path, "", "t.docx"))
    with pytest.raises(InputError, match="cannot read it as parquet"):
        read_table(write(tmp_path, "no parquet at all", "t.parquet"))
    with pytest.raises(
        InputError,
        match="column 'Budget' not found among n_params, n_tokens, loss: give --column flops_budget=",
    ):
        from_dataframe(pd.DataFrame(GOOD), dataclasses.replace(DEFAULT_COLUMNS, flops_budget="Budget"))


def test_the_error_for_a_missing_value_names_the_dataframe():
    with pytest.raises(InputError, match="the DataFrame: column 'loss' has nan in row 2"):
        from_dataframe(pd.DataFrame({**GOOD, "loss": [3.0, None]}))


def test_a_column_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("n_params,n_tokens,loss,loss\n1e6,1e7,3,4\n")
    with pytest.raises(InputError, match="column 'loss' is not unique; keep one column of that name"):
        read_table(path)


def test_booleans_are_not_numbers(tmp_path):
    frame = pd.DataFrame({**GOOD, "loss": [True, True]})
    path = tmp_path / "points.parquet"
    frame.to_parquet(path)
    with pytest.raises(InputError, match="'loss' has True in row 1"):
        read_table(path)


def test_the_purpose_of_a_run_is_read(tmp_path):
    path = write(tmp_path, "n_params,n_tokens,loss,purpose\n1e6,1e9,3,\n1e6,1e9,3,hparam_check\n")
    assert [point.purpose for point in read_table(path)] == [None, "hparam_check"]
