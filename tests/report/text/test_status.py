"""Sweep status as text: every run at any size, rates, and log tails of failed runs."""

from __future__ import annotations

import io
import time

from rich.console import Console

from sweep.report.text.status import status_text
from sweep.worker.__main__ import work
from tests.toy_trainer import toy_sweep, train


def shown(store):
    screen = io.StringIO()
    Console(file=screen, width=200, soft_wrap=True).print(status_text(store.status()))
    return screen.getvalue()


def test_a_failed_run_shows_its_state_its_reason_and_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAULT", "bug:run-1")
    store = toy_sweep(tmp_path, 3, max_failures=1)
    work(tmp_path, train=train)
    text = shown(store)
    assert "failed:code" in text
    assert "ValueError: a bug" in text
    assert "    in two lines\n" in text
    assert "last lines of its log" in text
    assert "FLOPs per hour;" in text
    assert "peak unknown" in text


def test_a_large_sweep_lists_every_run_quickly(tmp_path):
    store = toy_sweep(tmp_path, 600)
    started = time.process_time()  # of this process alone, however busy the machine
    text = shown(store)
    assert time.process_time() - started < 2
    assert sum(" planned " in line for line in text.splitlines()) == 600
    assert len({line.index("planned") for line in text.splitlines() if " planned " in line}) == 1
    assert "600 runs: none done" in text
