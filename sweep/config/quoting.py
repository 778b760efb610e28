"""Overrides in Hydra's grammar: paths and other texts in quotes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal, get_args, get_origin, get_type_hints

from sweep.config.reading import in_quotes, key_fields


def quoted(override: str) -> str:
    """Return an override in Hydra's grammar, with paths and other texts in quotes.

    A text that is in quotes already, null and an empty value are left alone. The items of a list of paths are
    separated by commas outside of quotes and brackets.

    >>> quoted("data_dir=my data,1")
    "data_dir='my data,1'"
    >>> quoted("data.files=[~/my texts/*.txt, b[0-9].txt]")
    "data.files=['~/my texts/*.txt','b[0-9].txt']"
    >>> quoted("budgets=[1e9]")
    'budgets=[1e9]'
    """
    key, equals, value = override.partition("=")
    kind = _text_keys().get(key)
    if kind is None or not equals or value in ("", "null"):
        return override
    if kind == "list" and value[0] == "[" and value[-1] == "]":
        return f"{key}=[{','.join(_text_in_quotes(item) for item in _items(value[1:-1]))}]"
    return f"{key}={_text_in_quotes(value)}"


@cache
def _text_keys() -> dict[str, Literal["text", "list"]]:
    """Return the keys of texts and of lists of texts."""
    kinds: dict[str, Literal["text", "list"]] = {}
    for key, cls, field in key_fields():
        hint = get_type_hints(cls)[field.name]
        if {hint, *get_args(hint)} <= {hint, str, type(None)} and (hint is str or str in get_args(hint)):
            kinds[key] = "list" if get_origin(hint) is tuple else "text"
        elif get_origin(hint) is tuple and get_args(hint) == (str, ...):
            kinds[key] = "list"
    return kinds


def _text_in_quotes(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    return text if is_quoted else in_quotes(text)


def _items(text: str) -> Iterator[str]:
    """Yield the items of a list, separated by commas outside of quotes and brackets."""
    item, depth, quote = "", 0, ""
    for char in text:
        if char == "," and not depth and not quote:
            yield item.strip()
            item = ""
            continue
        item += char
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and not item[:-1].strip():  # a quote inside of a name is part of it
            quote = char
        else:
            depth = max(0, depth + (char == "[") - (char == "]"))
    if item.strip():
        yield item.strip()
