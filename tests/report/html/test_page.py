"""The page as a file: one document, one script, nothing of a user's text as markup, and small."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from sweep.records import CurvePoint
from sweep.report.html.document import document
from sweep.report.html.page import page_html
from tests.report.html.conftest import hostile, page_of
from tests.report.html.payloads import PAYLOADS, SET

ALLOWED = set(
    "html head meta title style body a header h1 p span button nav main noscript section h2 h3 div ul li "
    "table tr th td pre details summary code aside script".split()
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.within: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in self.raw:
            self.within = tag
            self.raw[tag].append("")

    def handle_endtag(self, tag):
        self.within = None if tag in self.raw else self.within

    def handle_data(self, data):
        if self.within:
            self.raw[self.within][-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def attacked(planted) -> Elements:
    return Elements(page_html(hostile(planted)))


def test_texts_of_users_never_become_markup(attacked):
    assert len(PAYLOADS) >= 30
    tags = [tag for tag, _ in attacked.elements]
    assert set(tags) <= ALLOWED
    assert tags.count("script") == 3
    assert tags.count("style") == 1
    for _, attributes in attacked.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "style")
        ]
        assert (attributes.get("href") or "#").startswith("#")
    assert SET not in attacked.raw["script"][2]
    for payload in PAYLOADS:
        assert payload in attacked.text  # visible as text


def test_the_document_survives_as_json(attacked, planted):
    shown = json.loads(attacked.raw["script"][0])
    assert shown == json.loads(json.dumps(document(hostile(planted))))
    assert shown["studies"][0]["arm"] == PAYLOADS[0]
    assert set(PAYLOADS) <= set(shown["studies"][0]["runs"]["label"])
    laws = json.loads(attacked.raw["script"][1])[PAYLOADS[0]]
    assert laws["methods"]["isoflop"]["a"] == planted.fit.laws["isoflop"].constants["a"]
    assert "draws" not in laws["methods"]["isoflop"]["bootstrap"]


def test_the_policy_allows_the_own_script_and_nothing_else(attacked):
    (policy,) = [
        attributes["content"]
        for tag, attributes in attacked.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for name, text in (("script", attacked.raw["script"][2]), ("style", attacked.raw["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in policy
    assert "connect-src" not in rules  # default-src applies


def test_scripts_have_no_sink_for_markup():
    text = page_html_scripts()
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert sink not in text
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import)\s*\(", text)


def page_html_scripts() -> str:
    from sweep.report.html.page import SCRIPTS, _asset

    return "".join(_asset(name) for name in SCRIPTS)


def test_equal_inputs_give_equal_bytes(planted):
    assert page_html(page_of(planted)) == page_html(page_of(planted))


def test_a_page_made_while_runs_are_left_offers_to_reload(planted):
    assert 'id="reload"' in page_html(page_of(planted, pending=(3, 9)))
    assert 'id="reload"' not in page_html(page_of(planted))


def test_a_thousand_runs_fit_into_six_megabytes(planted):
    copies = [
        dataclasses.replace(
            point, run_key=f"{copy:08x}{row:08x}", name=f"run{row}-{copy}", status="done", loss=3.0
        )
        for copy in range(50)
        for row, point in enumerate(planted.points)
    ][:1000]
    steps = np.unique(np.geomspace(1, 5000, 300).astype(int)).tolist()
    curve = tuple(
        CurvePoint(
            step=step, n_tokens=step * 512, flops=step * 10**9, train_loss=2.0 + 3.0 / step**0.3, lr=1e-3
        )
        for step in steps
    )
    results = dataclasses.replace(
        planted, points=[*planted.points, *copies], curves={str(point.run_key): curve for point in copies}
    )
    assert len(copies) == 1000
    assert len(page_html(page_of(results)).encode()) < 6e6
