"""Utilisation of known and unknown devices."""

import dataclasses

from sweep.records import BOOKKEEPING_COLUMNS, Point, RunResult


def test_both_utilisations_are_columns_and_no_science():
    assert {"mfu", "mfu_causal"} <= {field.name for field in dataclasses.fields(Point)}
    assert {"mfu", "mfu_causal"} <= {field.name for field in dataclasses.fields(RunResult)}
    assert {"mfu", "mfu_causal"} <= BOOKKEEPING_COLUMNS
