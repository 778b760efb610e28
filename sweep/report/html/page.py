"""The report as one HTML file without requests: template, style, scripts and document in one text.

A content-security policy allows the page's own script and style by their hashes, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from sweep.report.html.document import PageInput, document

TEMPLATE, STYLE = "page.html.j2", "page.css"
SCRIPTS = ("chart.js", "figures.js", "page.js")  # in this order


def page_html(page: PageInput) -> str:
    """Return the report; equal inputs give equal bytes."""
    shown = document(page)
    script = "\n".join(_asset(name) for name in SCRIPTS)
    style = _asset(STYLE)
    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(TEMPLATE).render(
        page=shown,
        policy=_policy(script, style),
        data=json_block(shown),
        laws=json_block(_fits(page)),
        script=Markup(script),
        style=Markup(style),
    )


def json_block(value: Any) -> Markup:
    """Return JSON for a script element: no character in it can end the element or open a comment.

    >>> str(json_block("</script><!--"))
    '"\\\\u003c/script\\\\u003e\\\\u003c!--"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only: no U+2028 either
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _policy(script: str, style: str) -> str:
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        f"base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _fits(page: PageInput) -> dict[str, Any]:
    """Return fit.json of each arm for programs, without the draws, which fit.json itself holds."""
    return {study.arm or "": _without_draws(study.results.fit.to_json()) for study in page.studies}


def _without_draws(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_draws(item) for key, item in value.items() if key != "draws"}
    return [_without_draws(item) for item in value] if isinstance(value, (list, tuple)) else value
