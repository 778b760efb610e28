"""Limits on the size and content of a config, checked before Hydra reads it and references are resolved."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml import YAMLError

from sweep.credentials import texts
from sweep.errors import InputError

MAX_OVERRIDE_CHARS = 16_384  # in total; Hydra's parser reads about 50,000 characters per second
MAX_FILE_BYTES = 262_144
MAX_DEPTH = 32  # of nested lists and sections
MAX_ARMS = 200
MAX_ARM_CHARS = 200  # the arm's name is a directory name

_REFERENCE = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*\}")
_READ_OTHERWISE = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)").fullmatch
"""Scalars that YAML 1.1 reads as octal or sexagesimal numbers: 010 is 8, and 16:00 is 960."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # only events are read, no objects are built
_PLAIN_KEYS = ("name",)  # keys of one word that are not groups
_TEXTS_WITH_LINE_ENDS = ("data.delimiter", "tokenizer.separator")


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise InputError for overrides that take Hydra long to parse or that set Hydra itself."""
    n_chars = sum(map(len, overrides))
    if n_chars > MAX_OVERRIDE_CHARS:
        raise InputError(
            f"the overrides have {n_chars:,} characters, at most {MAX_OVERRIDE_CHARS:,} are read: put long "
            f"lists into a file of configs/experiment"
        )
    for override in overrides:
        shown = repr(override if len(override) <= 60 else override[:60] + "...")
        key, _, value = override.partition("=")
        if re.match(r"[+~]*hydra\b", key):
            raise InputError(f"{shown} sets Hydra itself, which is not allowed: give keys of the config")
        is_group = re.fullmatch(r"[+~]*[a-z]+", key) and key.lstrip("+~") not in _PLAIN_KEYS
        if is_group and ".." in Path(value.strip("'\"")).parts:
            raise InputError(f"{shown} is outside of the config directories: give the name of a file in them")
        if _depth(override) > MAX_DEPTH:
            raise InputError(f"{shown} nests more than {MAX_DEPTH} lists or sections: flatten it")
        _refuse_resolvers(shown, override)


def check_files(directories: Iterable[Path], named_in: str) -> None:
    """Raise InputError for a YAML file that is too large or too deep, or has an alias or an ambiguous number.

    Checked are the files below `directories` that `named_in`, the text of the root config and the overrides,
    can lead to: a file with a name that occurs there or in a checked file. Files of other programs may lie
    next to them.

    An alias stands for a copy, so a file of a few lines may expand beyond the memory of any machine.
    """
    left = [path for directory in directories for path in sorted(directory.rglob("*.yaml"))]
    while named := [path for path in left if path.is_file() and _names(path.stem, named_in)]:
        for path in named:
            _check_file(path)
            named_in += "\n" + path.read_text(encoding="utf-8", errors="replace")
        left = [path for path in left if path not in named]


def _names(stem: str, text: str) -> bool:
    return re.search(rf"(?<![\w+.-]){re.escape(stem)}(?![\w+-])", text) is not None


def check_references(values: Mapping[str, Any]) -> None:
    """Raise InputError for a reference other than ${key} to a plain value of the config.

    Resolvers can read the environment; references to references grow exponentially.
    """
    for key, text in texts(values):
        _refuse_resolvers(key, text)
        for name in _REFERENCE.findall(text):
            found: Any = values
            for part in name.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if isinstance(found, (Mapping, list)) or "${" in str(found):
                raise InputError(
                    f"{key}={text!r} does not refer to a plain value: refer to one, as ${{batch_tokens}}"
                )


def check_texts(values: Mapping[str, Any]) -> None:
    """Raise InputError for a control character or invalid Unicode in any text."""
    for key, text in texts(values):
        allowed = "\n\r\t" if key in _TEXTS_WITH_LINE_ENDS else ""
        if any((ord(char) < 32 or 127 <= ord(char) < 160) and char not in allowed for char in text):
            raise InputError(f"{key}={text!r} holds a control character: remove it")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise InputError(f"{key}={text!r} is not valid text: write it in UTF-8")


def check_arms(axes: Mapping[str, Sequence[Any]]) -> None:
    """Raise InputError when the product of the axes is more than MAX_ARMS arms."""
    n_arms = 1
    for values in axes.values():
        n_arms *= len(values)
    if n_arms > MAX_ARMS:
        raise InputError(f"arms has {n_arms:,} combinations, at most {MAX_ARMS} make one sweep: give fewer")


def _check_file(path: Path) -> None:
    n_bytes = path.stat().st_size
    if n_bytes > MAX_FILE_BYTES:
        raise InputError(f"{path} has {n_bytes:,} bytes, a config has at most {MAX_FILE_BYTES:,}: shorten it")
    depth = 0
    data = path.read_bytes()
    if not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        _check_utf8(path, data)
    try:
        for event in yaml.parse(data, Loader=_LOADER):
            opens = isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent))
            depth += opens - isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent))
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{path}, line {_line(event)} holds an alias: write the value out")
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _READ_OTHERWISE(event.value):
                raise InputError(
                    f"{path}, line {_line(event)} holds {event.value}, which YAML reads as another number "
                    f"(base 8 or 60): put it in quotes, or write a number without leading zeros and colons"
                )
            if depth > MAX_DEPTH:
                raise InputError(
                    f"{path}, line {_line(event)} nests more than {MAX_DEPTH} lists or sections: flatten it"
                )
    except (YAMLError, UnicodeDecodeError):
        pass  # it may belong to another program; composing this file reports the error


def _check_utf8(path: Path, data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line} has byte {data[error.start]:#04x}, which is not UTF-8: save it as UTF-8"
        ) from None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _refuse_resolvers(place: str, text: str) -> None:
    if "${" in _REFERENCE.sub("", text):
        raise InputError(
            f"{place} holds a ${{...}} other than ${{key}}, which is not evaluated: write the value"
        )


def _depth(text: str) -> int:
    """Return the largest depth of nested brackets, quoted ones included."""
    depth = deepest = 0
    for char in text:
        depth += (char in "[{(") - (char in "]})")
        deepest = max(deepest, depth)
    return deepest
