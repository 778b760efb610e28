"""The verbs below `sweep data`, and `sweep import`."""

import json
import sys
from pathlib import Path

import pytest


def sweep(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command line in this process; return the exit code."""
    from sweep.cli.app import main

    monkeypatch.setattr(sys, "argv", ["sweep", *words])
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_copies_and_rows_without_text_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [f"document {i} " + "word " * 99 for i in range(200)]
    texts = [*rows, rows[0], rows[1], None, " ", rows[0]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = ["experiment=smoke", "data=huggingface", f"data.dataset={tmp_path}", f"data_dir={tmp_path}"]
    assert sweep(monkeypatch, "data", "inspect", *settings) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["n_copies"], found["n_blank"], found["n_train_tokens"]) == (3, 2, None)
    assert sweep(monkeypatch, "data", "prepare", *settings) == 0
    assert "dropped 3 copies of documents and 2 rows without text" in capfd.readouterr().err


def test_imported_points_are_fitted_without_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [
        (n, c / (6 * n), c)
        for c in (1e15, 1e16, 1e17)
        for n in [(c / 120) ** 0.5 * 1.5**k for k in range(-3, 4)]
    ]
    lines = [f"{n},{d},{c},{1.5 + 400 / n**0.35 + 600 / d**0.3}" for n, d, c in rows]
    (tmp_path / "older.csv").write_text("\n".join(["n_params,n_tokens,flops,val", *lines]) + "\n")
    words = ("import", str(tmp_path / "older.csv"), "--into", str(tmp_path / "store"), "--column", "loss=val")
    assert sweep(monkeypatch, *words) == 0
    assert capfd.readouterr().out == f"21 points imported: {tmp_path / 'store' / 'points.csv'}\n"
    assert sweep(monkeypatch, *words) == 0
    assert "0 points imported, 21 were there" in capfd.readouterr().out
    assert sweep(monkeypatch, "fit", str(tmp_path / "store"), "fit.n_bootstrap=0") == 0
    assert (tmp_path / "store" / "fit.json").is_file()
