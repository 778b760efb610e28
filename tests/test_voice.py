"""Counts that keep docstrings, comments, messages and documentation in plain English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CODE = ("sweep", "tests", "scripts")
TEXT = (*CODE, "configs", "docs", ".ci")
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".sh", ""}

OPENING = re.compile(r"\W*(what|whether|where|how|which|whose|who|when|why)\b", re.IGNORECASE)

AVOIDED = {
    "told", "lent", "lend", "lends", "whoever", "beside", "nothing but", "what others", "speak against",
    "speaks against", "of which", "as it is", "afloat", "blame", "bury", "crew", "in hand",
}  # fmt: skip
"""Words with a plainer alternative, such as next to (beside), anyone who (whoever), unchanged (as it is)."""

PRIVATE_NAMES = {
    "afloat", "beside", "blame", "bury", "crew", "lend", "lent", "orders", "pardon", "tend", "told",
}  # fmt: skip
"""Words of earlier identifiers, which say less than the terms of the field."""

_BETWEEN_WORDS = r"[\s#]+"  # a line break in a comment too
AVOIDED_PATTERN = re.compile(
    r"\b(" + "|".join(sorted(AVOIDED)).replace(" ", _BETWEEN_WORDS) + r")\b", re.IGNORECASE
)

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Docstring(NamedTuple):
    """A docstring, with its place."""

    is_module: bool
    line: int
    text: str


def docstrings(node: Documented) -> Iterator[Docstring]:
    """Yield the docstrings of a module and of its classes and functions, nested ones included."""
    text = ast.get_docstring(node, clean=False)
    if text is not None:
        yield Docstring(isinstance(node, ast.Module), node.body[0].lineno, text)
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from docstrings(child)


def avoided(text: str) -> list[tuple[int, str]]:
    """Return the line and the words of each use of avoided words, line breaks between them included."""
    return [
        (text.count("\n", 0, match.start()) + 1, match[0].lower()) for match in AVOIDED_PATTERN.finditer(text)
    ]


@cache
def texts() -> dict[str, str]:
    """Return the project's text files by path, except this one."""
    top = [path for path in ROOT.iterdir() if path.suffix in SUFFIXES - {""} or path.name == "Dockerfile"]
    below = [path for name in TEXT for path in (ROOT / name).rglob("*") if path.suffix in SUFFIXES]
    files = [path for path in (*top, *below) if path.is_file() and path != Path(__file__)]
    files = [path for path in files if "__pycache__" not in path.parts]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted(files)}


@cache
def all_docstrings() -> dict[str, list[Docstring]]:
    """Return the docstrings of all Python files and scripts by path."""
    return {
        path: list(docstrings(ast.parse(text)))
        for path, text in texts().items()
        if path.startswith(CODE) and (path.endswith(".py") or text.startswith("#!/usr/bin/env python"))
    }


def identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of every definition, parameter and assignment."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def private(source: str) -> list[tuple[int, str]]:
    """Return the identifiers of a module that consist of private words, in snake or camel case."""
    return sorted(
        (line, name)
        for line, name in identifiers(ast.parse(source))
        if PRIVATE_NAMES & {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)}
    )


def check_openings(*, of_modules: bool, n_at_least: int) -> None:
    """Check that no docstring starts with an avoided word."""
    every = [
        (path, found)
        for path, docstrings in all_docstrings().items()
        for found in docstrings
        if found.is_module == of_modules
    ]
    wrong = [(path, found) for path, found in every if OPENING.match(found.text)]
    lines = [f"{path}:{found.line}: {found.text.strip()[:60]}" for path, found in wrong]
    assert len(every) >= n_at_least
    assert not wrong, "\n".join(lines)


def test_module_docstrings_are_noun_phrases():
    check_openings(of_modules=True, n_at_least=200)


def test_docstrings_of_functions_are_imperatives():
    check_openings(of_modules=False, n_at_least=1000)


def test_avoided_words_are_not_used():
    assert len(texts()) > 250
    found = [f"{path}:{line}: {words}" for path, text in texts().items() for line, words in avoided(text)]
    assert not found, "\n".join(found)


def test_identifiers_use_the_terms_of_the_field():
    sources = {path: text for path, text in texts().items() if re.fullmatch(r"sweep/.*\.py", path)}
    assert len(sources) > 150
    found = [f"{path}:{line}: {name}" for path, text in sources.items() for line, name in private(text)]
    assert not found, "\n".join(found)


def test_the_counts_find_examples():
    source = '"""What a module is."""\ndef f():\n    """How it works."""\nclass C:\n    """A class."""\n'
    found = docstrings(ast.parse(source))
    assert [(one.is_module, one.line, bool(OPENING.match(one.text))) for one in found] == [
        (True, 1, True),
        (False, 3, True),
        (False, 5, False),
    ]
    assert avoided("plain\nThe user is told.\n# nothing\n# but") == [(2, "told"), (3, "nothing\n# but")]
    assert avoided("retold, lentil, besides, told_to") == []
    assert private("class Crew:\n    def extend(self, n_orders): self.told = attended = 1") == [
        (1, "Crew"), (2, "n_orders"), (2, "told"),
    ]  # fmt: skip
