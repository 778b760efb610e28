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
    assert "dropped 3 copies of documents and 2 rows or parts of no text" in capfd.readouterr().err
