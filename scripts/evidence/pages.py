"""Generated parts of the documentation: blocks of docs/science.md, and numbers that README.md quotes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from scripts.evidence.studies import STUDIES, present, validations
from scripts.evidence.tables import TABLES
from sweep.study.laws import read_hparams

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "science.md"
BLOCK = "<!-- scripts/reproduce: {name} -->\n{body}\n<!-- end -->"


def tables() -> dict[str, str]:
    """Return the text of every table with the study that it needs."""
    existing = {study.name for study in present()}
    return {name: "\n".join(["", *make(), ""]) for name, (needs, make) in TABLES.items() if needs in existing}


def outdated(made: dict[str, str]) -> Iterator[str]:
    """Yield a sentence for every block of the page that is missing or differs."""
    text = PAGE.read_text()
    for name, body in made.items():
        found = re.search(_pattern(name), text, re.DOTALL)
        if found is None:
            yield f"docs/science.md has no block {name}"
        elif found[1] != body:
            yield f"docs/science.md: the table {name} differs from a new one"


def write(made: dict[str, str]) -> None:
    """Write every block of the page."""
    text = PAGE.read_text()
    for name, body in made.items():
        text = re.sub(
            _pattern(name), lambda _, n=name, b=body: BLOCK.format(name=n, body=b), text, flags=re.DOTALL
        )
    PAGE.write_text(text)


def _pattern(name: str) -> str:
    """Return the pattern of a block, which may be empty and never extends into another one."""
    first, last = BLOCK.format(name=name, body="{body}").split("\n{body}\n")
    return rf"{re.escape(first)}\n((?:(?!<!--).)*?)\n?{re.escape(last)}"


def wrong_quotes() -> Iterator[str]:
    """Yield a sentence for every number quoted in a page that the reference sweeps contradict."""
    quotes = (
        ("docs/verbs.md", r"In the demo it is at most ([\d.]+) nats", demo_gap()),
        ("README.md", r"missed the measured losses by ([^:]+?):", loss_errors()),
    )
    for page, pattern, value in quotes:
        found = re.search(pattern, " ".join((ROOT / page).read_text().split()))
        if found is None or found[1] != value:
            yield f"{page}: {pattern!r} should give {value}"


def loss_errors() -> str:
    """Return the errors of the losses that `cpu_stdlib` predicted, by budget."""
    errors = [f"{100 * one.loss_error:.1f} %" for one in validations(STUDIES["cpu_stdlib"])]
    return " and ".join(errors)


def demo_gap() -> str:
    """Return the largest loss gap in the hyperparameter check of the demo, in nats, rounded up."""
    worst = next(iter(read_hparams(STUDIES["demo"].directory))).worst()
    assert worst is not None
    return f"{math.ceil(1e3 * (worst[1].found.loss_left or 0.0)) / 1e3:.3f}"
