"""Validation of plain dicts, with pydantic's errors as one sentence, and the list of all keys."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sweep.config.experiment import ExperimentConfig
from sweep.config.run import RunConfig
from sweep.errors import InputError


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def read_experiment(values: Mapping[str, Any]) -> ExperimentConfig:
    """Validate a composed experiment.

    Raises:
        InputError: A key is unknown or missing, or a value is not valid; with the key, value and choices.
    """
    experiment: ExperimentConfig = _read(ExperimentConfig, values)
    return experiment


def read_run(values: Mapping[str, Any]) -> RunConfig:
    """Validate a run, as stored in its config.json.

    Raises:
        InputError: As `read_experiment`.
    """
    run: RunConfig = _read(RunConfig, values)
    return run


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON types, the inverse of the readers."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def literal(value: Any) -> str:
    """Return a value in the grammar of overrides.

    >>> literal([1.5, None, "a b"])
    "[1.5,null,'a b']"
    >>> literal(["1", 1, "true", True])
    "['1',1,'true',true]"
    """
    if isinstance(value, (list, tuple)):
        return f"[{','.join(literal(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{literal(item)}' for key, item in value.items())}}}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w.+-]+", value) and not _LOOKS_OTHERWISE.fullmatch(value)
        return value if plain else in_quotes(value)
    return repr(value)


_LOOKS_OTHERWISE = re.compile(
    r"null|true|false|yes|no|on|off|[+-]?(nan|inf|[\d_]*\.?[\d_]+(e[+-]?\d+)?|\d[\d_]*\.)", re.IGNORECASE
)
"""Texts that are read as null, truth values or numbers unless they are quoted."""


def in_quotes(text: str) -> str:
    """Return `text` in single quotes, escaped for Hydra: backslashes count only before a quote or the end."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", r"\'")
    return f"'{escaped}'"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _read(cls: Any, values: Mapping[str, Any]) -> Any:
    try:
        return _adapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise InputError(_one_sentence(cls, error)) from None


def _one_sentence(cls: type, error: ValidationError) -> str:
    """Return pydantic's first error as one sentence with the key, the value and the choices."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path, owner = _known_path(cls, first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _misplaced_key(cls, path, owner)
    if first["type"] == "union_tag_invalid":
        key, choices = first["ctx"]["discriminator"].strip("'"), first["ctx"]["expected_tags"]
        return f"{'.'.join(path)}.{key}={first['ctx']['tag']!r} is not valid: choose from {choices}"
    if first["type"] == "union_tag_not_found":
        return f"{'.'.join(path)}.{first['ctx']['discriminator'].strip(chr(39))} is missing: give it a value"
    if first["type"] in ("missing", "missing_argument"):
        return f"{'.'.join(path)} is missing: give it a value"
    if isinstance(first["input"], (list, tuple)):  # name the item at fault rather than the list
        items = (
            p for p in problems if isinstance(p["loc"][-1], int) and _known_path(cls, p["loc"])[0] == path
        )
        first = next(items, first)
    same = [p for p in problems if p["input"] is first["input"] and _known_path(cls, p["loc"])[0] == path]
    reasons = " or ".join(dict.fromkeys(_plainly(problem["msg"]) for problem in same))
    value, key = first["input"], ".".join(path)
    shown = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    reasons = reasons.replace(_A_LIST, f"{_A_LIST} in brackets, such as {_example(owner, path[-1])}")
    if first["loc"][-1] == "[key]":  # pydantic's mark of a bad key
        return f"{key} has the key {shown}, which is not valid: {reasons}"
    if isinstance(value, (bool, int, float)) and reasons == "it should be a text":
        reasons += ", in quotes"
    return f"{key}={shown} is not valid: {reasons}"


_A_LIST = "it should be a list"


def _example(owner: Any, name: str) -> str:
    """Return a list of the type of items that a field holds."""
    types = str(_hints(owner).get(name))
    return "[1e10,2e10]" if "float" in types else "[a,b]" if "str" in types else "[1,2]"


def _misplaced_key(cls: type, path: tuple[str, ...], owner: type) -> str:
    """Return a sentence that refuses a key of another member of a union, or an unknown key."""
    key, section = ".".join(path), ".".join(path[:-1])
    if "." in path[-1]:  # a file has nested keys; an override is split at its dots
        parts = path[-1].split(".")
        nested = ": {".join(parts) + ": VALUE" + "}" * (len(parts) - 1)
        return f"{key} is one key with a dot, which a file cannot set: nest it, as {nested}"
    others = [tag for name, other, _ in key_fields(cls) if name == key for tag in tags(other)]
    if others:
        choices = " or ".join(f"{section}={tag}" for tag in others)
        return f"{key} has no effect with {section}={' or '.join(tags(owner))}: it needs {choices}"
    return unknown_key(key, known_keys(owner, f"{section}." if section else ""))


def known_keys(cls: Any = ExperimentConfig, prefix: str = "") -> list[str]:
    """Return every key that a user may set, nested ones with dots."""
    return list(_known_keys(cls, prefix))


@cache
def _known_keys(cls: Any, prefix: str) -> tuple[str, ...]:
    return tuple(key for key in dict.fromkeys(key for key, _, _ in key_fields(cls, prefix)) if key != "arm")


def key_fields(
    cls: Any = ExperimentConfig, prefix: str = ""
) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Yield every key with its class and its field, once for each member of a union that has the key."""
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        sections = _sections(hints[field.name])
        for section in sections:
            yield from key_fields(section, f"{prefix}{field.name}.")
        if not sections:
            yield prefix + field.name, cls, field


def with_defaults(values: Mapping[str, Any], cls: Any = ExperimentConfig) -> dict[str, Any]:
    """Return `values` with the default of every missing key, in the class that a section's name chooses."""
    filled = dict(values)
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        sections, given = _sections(hints[field.name]), filled.get(field.name, {})
        if len(sections) > 1 and isinstance(given, Mapping):
            sections = [one for one in sections if {*tags(one)} & {given.get("name"), given.get("source")}]
        if sections and isinstance(given, Mapping):
            filled[field.name] = with_defaults(given, sections[0])
        elif field.default is not dataclasses.MISSING:
            filled.setdefault(field.name, _plain(field.default))
    return filled


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _sections(hint: Any) -> list[Any]:
    """Return the dataclasses that a field may hold: its own type, or the members of its union."""
    return [cls for cls in (hint, *get_args(hint)) if dataclasses.is_dataclass(cls)]


def _named_sections(hint: Any) -> list[Any]:
    """Return the dataclasses that the values of a mapping may be; none for other fields."""
    mappings = (part for part in (hint, *get_args(hint)) if get_origin(part) is dict)
    return [section for mapping in mappings for section in _sections(get_args(mapping)[1])]


def tags(section: Any) -> tuple[str, ...]:
    """Return the values of a union member's discriminator, `source` or `name`; none for other classes."""
    hints = _hints(section)
    hint = hints.get("source", hints.get("name"))
    return get_args(hint) if get_origin(hint) is Literal else ()


def _tagged(sections: list[Any], tag: str) -> Any:
    """Return the member of a union that pydantic names by `tag`, a value of its discriminator."""
    for section in sections:
        if any(tag in get_args(hint) for hint in _hints(section).values()):
            return section
    return None


SYNONYMS = {
    "learning_rate": "lr",
    "batch_size": "batch_tokens",
    "layers": "n_layers",
    "heads": "n_heads",
    "width": "d_model",
    "hidden_size": "d_model",
    "vocab": "vocab_size",
    "sequence_length": "seq_len",
    "context": "seq_len",
    "seed": "seeds",
    "epochs": "max_epochs",
}
"""Names of settings in other trainers, and the fields that hold them here."""


def unknown_key(key: str, choices: Iterable[str]) -> str:
    """Return a sentence that refuses `key`, with the nearest valid keys and the others of its section."""
    valid = list(choices)
    names = dict.fromkeys([*valid, *(choice.partition(".")[0] for choice in valid)])
    field = SYNONYMS.get(key.rpartition(".")[2], key.rpartition(".")[2])
    same = [choice for choice in valid if choice.rpartition(".")[2] == field and choice != key]
    near = same[:3] or difflib.get_close_matches(key, names, n=3)
    section = key.rpartition(".")[0]
    inside = [choice for choice in valid if choice.startswith(f"{section}.")] if section else []
    listed = inside or sorted({choice.partition(".")[0] for choice in valid})
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{key} is not a known key: {hint}valid are {', '.join(listed)}"


def _known_path(cls: Any, loc: tuple[Any, ...]) -> tuple[tuple[str, ...], Any]:
    """Return the config keys in a pydantic location, without union tags, and the class of the last one."""
    path: list[str] = []
    owner: Any = cls
    sections: list[Any] = [cls]
    is_name = False  # the next part is a user's name, as of an evaluation set
    for part in loc[:-2] if loc[-1:] == ("[key]",) else loc:
        if not isinstance(part, str):
            continue
        if is_name:
            path.append(part)
            is_name = False
            continue
        if not sections:
            continue
        if len(sections) > 1 and (member := _tagged(sections, part)) is not None:
            sections = [member]
            continue
        owner = sections[0]
        path.append(part)
        hint = _hints(owner).get(part)
        sections = _sections(hint)
        if not sections:
            sections = _named_sections(hint)
            is_name = any(get_origin(one) in (dict, Mapping) for one in (hint, *get_args(hint)))
    return tuple(path), owner


def _plainly(reason: str) -> str:
    """Return a message of pydantic without terms of Python."""
    for python, plain in (
        ("a valid tuple", "a list"),
        ("a valid list", "a list"),
        ("a valid string", "a text"),
        ("Value error, ", ""),
        (" after validation", ""),
        ("Tuple", "list"),
        ("tuple", "list"),
        ("Input", "it"),
        ("input", "it"),
        ("dictionary should have", "it should have"),
        (" a valid dictionary or object to extract fields from", " a section of keys"),
        (" a valid dictionary", " a section of keys"),
    ):
        reason = reason.replace(python, plain)
    reason = re.sub(r"a dictionary or an instance of \w+", "a section of keys", reason)
    reason = re.sub(r"\b\d{10,}\b", lambda digits: f"{float(digits[0]):g}", reason)
    return reason[:1].lower() + reason[1:]
