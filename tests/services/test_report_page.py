"""The report in a real browser: drawn, silent, keyboard-driven, inert to scripts in names, and right."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks.compare_coverage import Plant
from sweep.config.compose import compose_experiment
from sweep.report.html.page import page_html
from sweep.store.imports import import_points
from sweep.study.predictions import noted_run
from sweep.study.report import write_page
from tests.report.figures.planted import planted_sweep
from tests.report.html.conftest import hostile, page_of
from tests.services.browser import Browser, browser
from tests.services.conftest import need
from tests.shell import sweep

pytestmark = pytest.mark.service

DEMO = Path(__file__).parents[2] / "results/reference/demo/points.csv"
WIDTHS = (400, 1400)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    need("chromium", "chromedriver")
    with browser(tmp_path_factory.mktemp("profile")) as session:
        yield session


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, arms_page: Path) -> dict[str, Path]:
    """The report of the reference demo's table and of a planted sweep with curves, and a hostile one."""
    directory = tmp_path_factory.mktemp("pages")
    table = directory / "demo.csv"
    table.write_bytes(DEMO.read_bytes())
    done = sweep("report", str(table), "--format", "svg", cwd=directory, timeout=400)
    assert done.returncode == 0, done.stderr
    results = planted_sweep()
    (directory / "planted.html").write_text(page_html(page_of(results)), encoding="utf-8")
    (directory / "hostile.html").write_text(page_html(hostile(results)), encoding="utf-8")
    names = {"demo": "demo.report.html", "planted": "planted.html", "hostile": "hostile.html"}
    return {"arms": arms_page, **{name: directory / file for name, file in names.items()}}


@pytest.fixture(scope="module")
def arms_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a planted sweep of three arms, with one that cannot be compared."""
    sweep_dir = tmp_path_factory.mktemp("compared") / "arms"
    plant_arms(sweep_dir)
    return write_page(sweep_dir)


def plant_arms(sweep_dir: Path) -> None:
    """Write a sweep of three arms: b is 1.3 times as good as a, and c has too few budgets."""
    a, b = Plant(name="planted").draw(np.random.default_rng(0))[:2]
    sides = {"a": a.points, "b": b.points, "c": [p for p in a.points if p.flops_budget < 3e11]}
    points = [
        dataclasses.replace(point, arm=arm, name=f"{arm}{row}", run_key=None)
        for arm, side in sides.items()
        for row, point in enumerate(side)
    ]
    import_points(sweep_dir, points, {"table": "planted", "sha256": "0" * 64})


def silent(session: Browser) -> None:
    assert session.console() == []
    assert session.requests() == []


@pytest.mark.parametrize("name", ["demo", "planted", "arms"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_figure_is_drawn_within_the_page(chromium, pages, name, width, theme, tmp_path):
    chromium.resize(width, 900)
    chromium.open(pages[name], f"#arm=a&theme={theme}")
    drawn = chromium.run(
        "return [...document.querySelectorAll('figure')].map(f => [f.id, f.querySelectorAll("
        "'svg[tabindex] path, svg[tabindex] circle').length, f.scrollWidth <= f.clientWidth + 1])"
    )
    assert len(drawn) >= 8
    assert [figure for figure, n_marks, fits in drawn if n_marks < 3 or not fits] == []
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    overlapping = chromium.run(OVERLAPS)
    assert overlapping == []
    if name != "planted":
        chromium.screenshot(tmp_path / f"{width}-{theme}.png")
        assert (tmp_path / f"{width}-{theme}.png").stat().st_size > 10_000
    silent(chromium)


OVERLAPS = """
const found = [];
for (const picture of document.querySelectorAll('figure > svg')) {
  const frame = picture.getBoundingClientRect();
  const contours = picture.parentNode.id === 'isoloss';
  const texts = [...picture.querySelectorAll(contours ? 'text' : 'text:not(.small)')];
  const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
  for (const [text, box] of boxes) {
    const inside = box.left >= frame.left - 2 && box.right <= frame.right + 14;
    if (!inside) found.push(['clipped', picture.parentNode.id, text]);
    for (const [other, b] of boxes) {
      const across = box.left < b.right - 2 && b.left < box.right - 2;
      const along = box.top < b.bottom - 3 && b.top < box.bottom - 3;
      if (text < other && across && along) found.push(['overlap', picture.parentNode.id, text, other]);
    }
  }
}
return found;
"""
"""Labels outside of their figure or on top of each other."""


def test_the_slider_gives_the_numbers_of_sweep_predict(chromium, pages):
    chromium.resize(1400, 900)
    chromium.open(pages["demo"])
    fitted = pages["demo"].with_name("fit.json")
    if not fitted.exists():
        done = sweep("fit", "demo.csv", "--json", cwd=fitted.parent, timeout=400)
        fitted.write_text(done.stdout, encoding="utf-8")
    seen = set()
    for position in (120, 400, 610, 903):
        chromium.run(
            "const s = document.getElementById('ask-slider'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input', {bubbles: true}))",
            position,
        )
        shown = chromium.run(
            "return Object.fromEntries([...document.querySelectorAll('#ask-answers dd[data-key]')]"
            ".map(d => [d.dataset.key, [d.dataset.value, d.dataset.low, d.dataset.high].map(Number)]))"
        )
        flops = shown.pop("flops")[0]
        seen.add(flops)
        done = sweep("predict", "fit.json", repr(flops), "--json", cwd=fitted.parent, timeout=200)
        answer = json.loads(done.stdout)["answer"]
        for name, (value, low, high) in shown.items():
            assert value == pytest.approx(answer[name], rel=5e-5)
            assert [low, high] == pytest.approx(answer["ci"][name], rel=5e-5)
    assert len(seen) == 4
    silent(chromium)


def test_arms_are_compared_as_by_sweep_compare(chromium, arms_page):
    chromium.resize(1400, 900)
    chromium.open(arms_page)
    shown = chromium.run("return JSON.parse(document.getElementById('data').textContent).comparisons")
    assert len(shown) == 3
    refused = [pair for pair in shown if "c" in (pair["a"], pair["b"])]
    (pair,) = [pair for pair in shown if pair not in refused]
    sources = [f"arms:{pair[side]}" for side in "ab"]
    done = sweep("compare", *sources, "--json", cwd=arms_page.parent.parent, timeout=200)
    given = json.loads(done.stdout)
    assert {**pair["found"], "next": None} == {**given, "next": None}  # the next command names the path
    text = chromium.run("return document.getElementById('compare').innerText")
    for other in refused:
        assert other["found"] is None
        assert other["refused"][1:] in text
    factor = given["target"]["flops_factor"]
    assert f"{factor['value']:.3g} [{factor['interval'][0]:.3g}, {factor['interval'][1]:.3g}] times" in text
    assert f"P({pair['b']} better)" in text
    chromium.run(
        "window.saveCsv = (id, rows) => { window.saved = [id, rows.map(row => row.join()).join('\\n')]; }"
    )
    chromium.run("document.querySelector('[id^=pair][id$=multiplier] figcaption button').click()")
    name, rows = chromium.run("return window.saved")
    assert name == f"pair-{shown.index(pair)}-multiplier"
    header, *cells = [row.split(",") for row in rows.splitlines()]
    columns = {title: [row[at] for row in cells] for at, title in enumerate(header)}
    assert [float(value) for value in columns["multiplier"]] == given["curves"]["multiplier"]
    assert [float(value) for value in columns["loss_b_low"]] == given["curves"]["loss_b_band"][0]
    silent(chromium)


def test_the_keyboard_reads_the_multiplier(chromium, arms_page):
    chromium.open(arms_page, "#theme=dark")
    chromium.run("document.querySelector('[id$=multiplier] svg').focus()")
    chromium.press("Right")
    said = chromium.run("return document.getElementById('live').textContent")
    assert "multiplier " in said
    assert chromium.run("return !!document.querySelector('[id$=multiplier] .focusring')")
    grey = chromium.run("return document.querySelectorAll('#compare figure[id^=pair] .beyond').length")
    assert grey == 2
    chromium.run("document.querySelectorAll('#arms button')[1].click()")  # stays with another arm
    assert chromium.run("return document.querySelectorAll('#compare figure[id^=pair]').length") == 2
    silent(chromium)


def test_the_copied_experiment_is_planned_as_the_page_says(chromium, planned_page):
    chromium.resize(1400, 900)
    chromium.open(planned_page, "#C=2e12")
    chromium.run("window.copied = []; window.copy = (text) => window.copied.push(text)")
    chromium.run("for (const b of document.querySelectorAll('#ask-output button')) b.click()")
    text, commands = chromium.run("return window.copied")
    # beyond the largest budget with a minimum
    assert commands == "sweep predict results/demo 2e12\nsweep validate results/demo 2e12"
    within = chromium.run("return commandText(current(), '1e12', 1.0)")
    assert within == "sweep predict results/demo 1e12"
    directory = planned_page.parent
    name = re.search(r"# Save as configs/experiment/(\w+)\.yaml", text).group(1)
    file = directory / "configs" / "experiment" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    done = sweep("plan", f"experiment={name}", "--json", cwd=directory, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "no effect" not in done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    shape = chromium.run("return document.getElementById('ask-shape').textContent")
    assert f"d_model {run['d_model']}, n_layers {run['n_layers']}" in shape
    assert run["flops"] == pytest.approx(2e12, rel=0.02)
    assert run["lr_peak"] == pytest.approx(float(shape.rpartition("lr ")[2]), rel=0.02)
    chromium.run("document.querySelector('.copy-experiment').click()")
    assert chromium.run("return window.copied.at(-1)").startswith("# @package _global_\nname: demo\n")
    silent(chromium)


@pytest.fixture
def planned_page(tmp_path: Path) -> Path:
    """A page of planted points under the settings of the demo."""
    experiment = compose_experiment(["experiment=demo"])
    page = page_of(
        planted_sweep(),
        source="results/demo",
        experiment=experiment,
        run_at=partial(noted_run, experiment, None),
    )
    path = tmp_path / "report.html"
    path.write_text(page_html(page), encoding="utf-8")
    return path


def test_the_page_prints_with_figures_of_the_width_of_paper(chromium, pages):
    chromium.resize(400, 900)  # a phone
    chromium.open(pages["planted"], "#theme=dark")
    chromium.command("Emulation.setEmulatedMedia", {"media": "print"})
    chromium.resize(718, 900)  # of A4 between margins of 1 cm
    chromium.run("dispatchEvent(new Event('beforeprint'))")
    assert chromium.run("return document.documentElement.dataset.theme") == "light"
    assert all(0.85 < scale < 1.15 for scale in chromium.run(f"return {SCALES}"))  # letters keep their size
    assert chromium.run(OVERLAPS) == []
    assert chromium.run("return document.documentElement.scrollWidth") <= 718
    for part in ("#ask-slider", ".chips button", "figcaption button", "nav", ".legend [aria-pressed=false]"):
        assert chromium.run(N_VISIBLE, part) == 0, part
    assert chromium.run(N_VISIBLE, "details:not([open])") == 0
    assert chromium.run(N_VISIBLE, "#run-rows tr") == len(planted_sweep().points)
    chromium.run("dispatchEvent(new Event('afterprint'))")
    chromium.command("Emulation.setEmulatedMedia", {"media": ""})
    chromium.resize(400, 900)
    assert chromium.run("return document.documentElement.dataset.theme") == "dark"
    assert chromium.run(N_VISIBLE, "details:not([open])") > 0
    chromium.wait(f"return {SCALES}.every(s => Math.abs(s - 1) < 0.01)")  # drawn for the screen again
    paper = chromium.command("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})["data"]
    assert base64.b64decode(paper).startswith(b"%PDF")
    silent(chromium)


N_VISIBLE = "return [...document.querySelectorAll(arguments[0])].filter(n => n.offsetParent !== null).length"
SCALES = (
    "[...document.querySelectorAll('figure > svg')]"
    ".map(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
)
"""By figure, the width it is shown at over the width it is drawn for."""


def test_far_budgets_are_refused_and_losses_are_inverted(chromium, pages):
    chromium.open(pages["demo"])
    ask = (
        "const f = document.getElementById(arguments[0]); f.value = arguments[1];"
        "f.dispatchEvent(new Event('input')); f.dispatchEvent(new Event('change'))"
    )
    chromium.run(ask, "ask-flops", "1e30")
    assert "Refused" in chromium.run("return document.getElementById('ask-message').textContent")
    assert chromium.run("return document.querySelectorAll('#ask-answers dd').length") == 0
    chromium.run(ask, "ask-mode", "loss")
    chromium.run(ask, "ask-loss", "2.8")
    loss = chromium.run("return document.querySelector('[data-key=loss_opt]').dataset.value")
    assert float(loss) == pytest.approx(2.8, rel=1e-6)
    assert chromium.run("return document.getElementById('ask-output').className.includes('far')")
    silent(chromium)


def test_the_keyboard_reaches_and_picks_a_run(chromium, pages):
    chromium.open(pages["planted"])
    chromium.run("document.querySelector('#isoflop svg').focus()")
    for _ in range(8):  # the first may be one that is not fitted
        chromium.press("Right", "Enter")
        if chromium.run("return !!document.querySelector('#picked [data-without]')"):
            break
    assert chromium.run("return document.querySelectorAll('#run-rows tr.lit').length") == 1
    assert chromium.run("return !document.getElementById('picked').hidden")
    assert chromium.run("return document.querySelectorAll('figure:has(.ring, .litline)').length") >= 3
    away = chromium.run(
        "const f = document.getElementById('isoflop'), tip = f.querySelector('.tip').getBoundingClientRect();"
        "const ring = f.querySelector('.focusring').getBoundingClientRect(); return tip.top - ring.bottom"
    )
    assert -5 < away < 30  # the text stands at its point
    assert "run=" in chromium.run("return location.hash")
    chromium.run("document.querySelector('#picked [data-without]').click()")
    assert "Without" in chromium.run("return document.getElementById('without-text').textContent")
    address = chromium.run("return location.hash")
    chromium.open(pages["planted"], address)  # the state is in the address
    assert chromium.run("return document.querySelectorAll('#run-rows tr.lit').length") == 1
    chromium.run("document.querySelector('#isoflop svg').focus()")
    chromium.press("Escape")
    assert chromium.run("return document.getElementById('picked').hidden")
    order = [chromium.run("return document.activeElement.id || document.activeElement.tagName")]
    for _ in range(3):
        chromium.press("Tab")
        order.append(chromium.run("return document.activeElement.textContent"))
    assert len(set(order)) == 4
    silent(chromium)


def test_the_table_is_filtered_and_sorted(chromium, pages):
    chromium.open(pages["planted"], "#filter=diverged")
    assert chromium.run("return document.querySelectorAll('#run-rows tr').length") == 1
    chromium.open(pages["planted"])
    chromium.run("document.querySelector('th [data-key=loss]').click()")
    losses = chromium.run(
        "const k = [...document.querySelectorAll('#runs thead th')].findIndex(t => t.textContent === 'loss');"
        "const rows = [...document.querySelectorAll('#run-rows tr')].map(r => r.cells[k].textContent);"
        "return rows.filter(Boolean).map(Number)"
    )
    assert losses == sorted(losses)
    silent(chromium)


def test_scripts_in_names_labels_and_reasons_are_inert(chromium, pages):
    chromium.open(pages["hostile"])
    chromium.run(
        "for (const b of document.querySelectorAll('.legend button, th button, .chips button')) b.click()"
    )
    chromium.run("for (const r of [...document.querySelectorAll('#run-rows tr')].slice(0, 60)) r.click()")
    chromium.run("document.querySelector('#isoflop svg').focus()")
    chromium.press(*["Right"] * 12, "Enter")
    assert chromium.run("return window.pwned === undefined")
    assert (
        chromium.run("return document.querySelectorAll('img, iframe, object, base, link, video').length") == 0
    )
    assert chromium.run("return document.querySelectorAll('script').length") == 3
    silent(chromium)


def test_a_page_of_a_running_sweep_reloads(chromium, pages):
    chromium.open(pages["hostile"])
    chromium.run("window.before = true; document.getElementById('reload').click()")
    chromium.wait("return window.before === undefined && document.documentElement.dataset.ready === 'true'")
    silent(chromium)
