"""scripts/reproduce: stored fits, predictions, tables and quoted numbers follow from the committed points."""

import json
import re
import subprocess
import sys

import pytest

from scripts.evidence import pages, studies
from scripts.evidence.studies import STUDIES, refit, unequal, validation_errors
from tests.shell import ROOT


@pytest.mark.ci
def test_everything_stored_is_repeated():
    command = [sys.executable, str(ROOT / "scripts" / "reproduce")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_number_is_compared_to_a_millionth():
    stored = {"a": [1.0, {"b": 2.0}], "name": "x", "bootstrap": [1.0]}
    assert not list(unequal(stored, {"a": [1.0 + 1e-7, {"b": 2.0}], "name": "x", "bootstrap": [2.0]}))
    assert list(unequal(stored, {"a": [1.0, {"b": 2.00001}], "name": "y"})) == ["a[1].b", "name"]
    assert list(unequal({"a": 1.0}, {"c": 1.0})) == ["a", "c"]
    assert list(unequal({"a": [1.0]}, {"a": [1.0, 2.0]})) == ["a"]
    assert list(unequal({"a": True}, {"a": 1.0})) == []


def copied(tmp_path, monkeypatch):
    """Copy the demo's points and predictions to a directory in which they can be changed."""
    source = STUDIES["demo"].directory
    target = tmp_path / "demo"
    (target / "validations").mkdir(parents=True)
    names = [
        "points.csv",
        "validations.json",
        *(f"validations/{p.name}" for p in source.glob("validations/*")),
    ]
    for name in names:
        (target / name).write_bytes((source / name).read_bytes())
    monkeypatch.setattr(studies, "REFERENCE", tmp_path)
    return STUDIES["demo"], target


def test_a_prediction_is_older_than_its_runs(tmp_path, monkeypatch):
    study, target = copied(tmp_path, monkeypatch)
    assert list(validation_errors(study)) == []
    points = (target / "points.csv").read_text()
    registered = json.loads((target / "validations.json").read_text())["validations"][0]["prediction"]
    (run, *_) = registered["runs"]
    (line,) = [line for line in points.splitlines() if line.startswith(run["run_key"])]
    at = points.splitlines()[0].split(",").index("started_at")
    cells = line.split(",")
    cells[at] = "2000-01-01T00:00:00.000+00:00"
    (target / "points.csv").write_text(points.replace(line, ",".join(cells)))
    (error,) = validation_errors(study)
    assert f"{run['name']} started before the prediction was registered" in error


def test_a_changed_loss_is_found(tmp_path, monkeypatch):
    study, target = copied(tmp_path, monkeypatch)
    points = (target / "points.csv").read_text()
    first = points.splitlines()[1].split(",")
    loss = first[points.splitlines()[0].split(",").index("loss")]
    (target / "points.csv").write_text(points.replace(loss, "4.2"))
    assert any("made from other points" in error for error in validation_errors(study))


def test_runs_of_validations_are_not_fitted():
    tested = studies.validation_keys(STUDIES["demo"])
    assert len(tested) == 6
    fitted = refit(STUDIES["demo"].with_config(methods=("isoflop",), n_bootstrap=0))[None]
    assert fitted.n_points == 50
    assert fitted.flops_range[1] < 6.1e11


def test_a_changed_table_is_found(tmp_path, monkeypatch):
    page = tmp_path / "science.md"
    page.write_text(f"before\n\n{pages.BLOCK.format(name='validations', body='| old |')}\n\nafter\n")
    monkeypatch.setattr(pages, "PAGE", page)
    assert list(pages.outdated({"validations": "| new |"})) == [
        "docs/science.md: the table validations differs from a new one"
    ]
    pages.write({"validations": "| new |"})
    assert list(pages.outdated({"validations": "| new |"})) == []
    assert page.read_text().startswith("before\n\n<!-- scripts/reproduce: validations -->\n| new |\n")
    assert list(pages.outdated({"other": "| new |"})) == ["docs/science.md has no block other"]


def test_reference_sweeps_hold_no_paths_and_no_pickles():
    files = [path for path in studies.REFERENCE.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".csv", ".json", ".png"}
    texts = [path.read_text() for path in files if path.suffix != ".png"]
    assert [
        path for text in texts for path in re.findall(r'(?<=[",\s])/\w+/[\w./-]*', text)
    ] == []  # absolute
