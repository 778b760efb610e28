"""Sources of comparisons: sweeps, arms, tables, and their text and figure."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from scripts.benchmarks.compare_coverage import Plant
from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.report.figures.comparison import comparison_figure
from sweep.report.figures.style import save_file
from sweep.report.text.comparison import comparison_text
from sweep.store.run_store import Exclusion, RunStore, StoredPoints
from sweep.study.compare import compare_arms, compare_sources

CONFIG = FitConfig(n_bootstrap=200, confidence=0.9)
COLUMNS = (
    "arm",
    "seed",
    "n_params",
    "n_tokens",
    "flops",
    "flops_budget",
    "loss",
    "device",
    "tokens_per_second",
)


def arms(**plant):
    """Points of both arms, named and keyed."""
    sides = Plant(name="planted", **plant).draw(np.random.default_rng(0))[:2]
    return {
        arm.name: [
            replace(p, arm=arm.name, run_key=f"{arm.name}-{at}", name=f"{arm.name}-{at}", optimizer="adamw")
            for at, p in enumerate(arm.points)
        ]
        for arm in sides
    }


def table(path: Path, rows) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for point in rows:
            values = {"device": "cpu", "tokens_per_second": 1e5}
            cells = (getattr(point, name) or values.get(name, "") for name in COLUMNS)
            writer.writerow(
                [
                    "0" if name == "seed" and not cell else cell
                    for name, cell in zip(COLUMNS, cells, strict=True)
                ]
            )
    return path


@pytest.fixture
def two_arms(monkeypatch, tmp_path):
    """A sweep of the arms a and b, with one run of b excluded by a user."""
    points = [point for found in arms().values() for point in found]
    left_out = (Exclusion(run_key="b-3", reason="by hand"),)
    stored = StoredPoints(points=tuple(points), excluded=left_out, curves={})
    monkeypatch.setattr(RunStore, "points", lambda self: stored)
    return tmp_path


def test_arms_of_a_sweep(two_arms):
    found = compare_sources([str(two_arms)], CONFIG)
    assert (found.a.name, found.b.name, found.b.n_points) == ("a", "b", 59)
    low, high = found.target.flops_factor.interval
    assert low <= 1.3 <= high
    assert found.next == f"sweep validate {two_arms} 6.4e12 --arm b"
    assert "no check-hparams of a; no check-hparams of b" in found.warnings[-1]
    named = compare_sources([f"{two_arms}:b", f"{two_arms}:a"], CONFIG)
    assert named.at[2].flops_factor.value == pytest.approx(1 / found.at[2].flops_factor.value, rel=0.03)


def test_each_two_of_three_arms_are_compared_or_refused(monkeypatch, tmp_path):
    sides = arms()
    near = [p for p in sides["a"] if p.flops_budget < 3e11]
    few = [replace(p, arm="c", run_key=f"c-{p.name}", name=f"c-{p.name}") for p in near]
    points = (*sides["a"], *sides["b"], *few)
    stored = StoredPoints(points=points, excluded=(), curves={})
    monkeypatch.setattr(RunStore, "points", lambda self: stored)
    found = compare_arms(tmp_path, CONFIG)
    assert [(pair.a, pair.b) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    given = compare_sources([f"{tmp_path}:a", f"{tmp_path}:b"], CONFIG)
    assert found[0].found is not None
    assert found[0].found.to_json() == given.to_json()
    assert found[0].found.at_largest.flops == pytest.approx(max(given.a.budgets), rel=0.03)
    for pair in found[1:]:
        assert pair.found is None
        assert "arm c" in pair.refused
    further = [replace(p, arm="d", run_key=f"d-{p.name}", name=f"d-{p.name}") for p in near]
    stored = StoredPoints(points=(*points, *further), excluded=(), curves={})
    monkeypatch.setattr(RunStore, "points", lambda self: stored)
    assert [(pair.a, pair.b) for pair in compare_arms(tmp_path, CONFIG)] == [("a", b) for b in "bcd"]


def test_tables_and_the_arms_of_a_table(two_arms):
    rows = arms()
    one, other = (table(two_arms / f"{name}.csv", found) for name, found in rows.items())
    both = table(two_arms / "both.csv", [*rows["a"], *rows["b"]])
    found = [
        compare_sources(sources, CONFIG)
        for sources in ([str(one), str(other)], [str(both)], [f"{both}:a", f"{both}:b"])
    ]
    assert [one.target.flops_factor for one in found] == [found[0].target.flops_factor] * 3
    assert (found[0].a.name, found[0].b.name) == ("a", "b")
    assert (found[1].a.name, found[1].b.name) == ("a", "b")
    assert found[0].device == "cpu"
    assert found[0].next.startswith("sweep compare ")
    assert found[0].n_pairs >= 50


def test_tables_of_one_name_are_named_by_their_directories(tmp_path):
    rows = arms()
    for name, arm in (("one", None), ("other", "b")):
        (tmp_path / name / "deep").mkdir(parents=True)
        found = rows["b" if arm else "a"]
        table(tmp_path / name / "deep" / "points.csv", [replace(point, arm=arm) for point in found])
    paths = [str(tmp_path / name / "deep" / "points.csv") for name in ("one", "other")]
    found = compare_sources(paths, CONFIG)
    assert (found.a.name, found.b.name) == ("one", "other:b")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["{}", "{}"], "has 2 arms (a, b): name one of them, as {}:a"),
        (["{}:a", "{}:a"], "{}:a is given twice"),
        (["{}:c", "{}:a"], "unknown arm c of {}: choose from a, b"),
        (["{}/absent", "{}:a"], "{}/absent not found"),
        (["{}/a.csv"], "{}/a.csv has no arms: add the sweep or table to compare"),
        (["{}/a.csv:x", "{}:b"], "unknown arm x of {}/a.csv: it has no arms"),
        ([], "give two sweeps, arms or tables"),
    ],
)
def test_wrong_sources_are_refused(two_arms, sources, message):
    table(two_arms / "a.csv", [replace(point, arm=None) for point in arms()["a"]])
    with pytest.raises(InputError) as refused:
        compare_sources([source.format(two_arms) for source in sources], CONFIG)
    assert message.format(two_arms) in str(refused.value)


def test_the_text_has_at_most_15_lines(two_arms):
    found = compare_sources([str(two_arms)], CONFIG)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(comparison_text(found, closing="picture: x.png"))
    text = console.export_text()
    assert len(text.splitlines()) <= 15
    assert "at 1.6e13 FLOPs A needs 1.3" in text
    assert "1.6e13*" in text
    assert "estimates do not cross within 1e11 to 1.6e13 FLOPs" in text
    assert "shared exponents preferred" in text


def test_a_target_at_a_budget_is_one_row_in_order(two_arms):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(comparison_text(compare_sources([str(two_arms)], CONFIG, flops=4e11)))
    rows = [line.split()[0] for line in console.export_text().splitlines() if line[:1].isdigit()]
    assert rows == ["1e11", "2e11", "4e11", "8e11", "1.6e12*"]


def test_the_document_is_json_and_the_figure_is_drawn(two_arms):
    found = compare_sources([str(two_arms)], CONFIG)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["next"] == found.next
    assert len(document["curves"]["flops"]) == len(document["curves"]["multiplier_band"][0])
    assert document["target"]["flops_factor"]["interval"][0] > 1
    path = save_file(comparison_figure(found), two_arms / "compare.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    figure = comparison_figure(found)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Loss over compute",
        "Compute multiplier of B over A",
    ]
    low, high = figure.axes[1].get_ylim()
    assert low < 1.0 < 1.3 < high
