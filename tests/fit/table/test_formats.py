"""Tables recognised by their first bytes, whatever their names."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from sweep.errors import InputError
from sweep.fit.table.files import read_cells

CSV = b"n_params,loss\n1e5,3.5\n2e5,3.25\n"
TABLE = pa.table({"n_params": ["1e5", "2e5"], "loss": ["3.5", "3.25"]})


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(TABLE, path)


def arrow(path: Path) -> None:
    with pyarrow.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE)


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.csv.zst", "gzip.csv", "zstd.csv", "parquet.csv", "a.arrow"]
)
def test_the_same_columns_in_every_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in ("parquet.csv", "a.arrow"):
        {"parquet.csv": parquet, "a.arrow": arrow}[name](path)
    elif name.endswith(".gz") or name == "gzip.csv":
        path.write_bytes(gzip.compress(CSV))
    else:
        path.write_bytes(pa.compress(CSV, "zstd", asbytes=True) if "z" in name else CSV)
    assert read_cells(path).columns == {"n_params": ["1e5", "2e5"], "loss": ["3.5", "3.25"]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer, not the file: run git lfs pull",
        ),
        (b"<!DOCTYPE html>\n<html></html>", "is HTML or XML, perhaps the error page of a server: download"),
        (
            gzip.compress(b"<html></html>", mtime=0),
            "is HTML or XML, perhaps the error page of a server: download it",
        ),
        (bz2.compress(CSV), "is compressed with bzip2: decompress it with bzip2 -d"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.bz2"])
def test_what_is_no_table_names_the_tool_that_helps(
    tmp_path: Path, content: bytes, sentence: str, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    if name == "a.bz2" and content.startswith(b"\x1f"):
        sentence = "unknown suffix"
    with pytest.raises(InputError, match=sentence):
        read_cells(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{\n "schema_version": 1,\n "methods": {}\n}', "it is a fit, not a table: give the table that was"),
        ('{\n "n_params": 1e5\n}', "it is one object over several lines: give one object a line"),
        ('{"n_params": 1e5}\n{"n_params": ', "line 2: "),
    ],
)
def test_json_that_is_no_table_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "fit.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_cells(tmp_path / "fit.json")
