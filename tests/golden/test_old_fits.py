"""fit.json files written by earlier versions: every later one reads them, and writes the same content.

`fit_0_1_0.json` was written by version 0.1.0 with every method, 6 resamples and `reconcile`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweep.fit import METHODS, predict, read_fit

OLD = Path(__file__).parent / "fit_0_1_0.json"


def test_an_old_fit_is_read_and_written_with_the_same_content():
    raw, written = json.loads(OLD.read_text()), read_fit(OLD).to_json()
    assert raw["methods"].keys() <= METHODS.keys()
    for document in (raw, written):
        assert "alpha = beta" in document["methods"]["overtraining"].pop("assumes")  # worded anew
        assert "normal noise" in document["methods"]["parametric"].pop("profile_assumes")  # likewise
    assert rounded(common(written, raw)) == rounded(raw)


def common(value, old):
    """Return `value` with the keys of `old` only: later versions add keys."""
    if isinstance(value, dict) and isinstance(old, dict):
        return {key: common(value[key], item) for key, item in old.items()}
    if isinstance(value, list) and isinstance(old, list):
        return [common(*pair) for pair in zip(value, old, strict=True)]
    return value


def rounded(value):
    """The document with numbers to 13 digits: some functions differ in the last one between platforms."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.13g}") if isinstance(value, float) else value


def test_an_old_fit_is_predicted_from():
    raw = json.loads(OLD.read_text())
    row = raw["agreement"]["rows"][1]
    (prediction,) = predict(read_fit(OLD), [row["flops"]])
    for name, old in row["methods"].items():
        entry = prediction.methods[name]
        assert entry.estimate["n_params_opt"] == pytest.approx(old["n_params_opt"], rel=1e-12), name
        assert entry.ci.keys() == old["ci"].keys()
