"""The only ways from a plain dict to a config, and from pydantic's complaints to one sentence."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sweep.config.experiment import ExperimentConfig
from sweep.config.run import RunConfig
from sweep.errors import InputError


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def read_experiment(values: Mapping[str, Any]) -> ExperimentConfig:
    """Validate a composed experiment. Raises InputError naming the key, the value and what would be valid."""
    experiment: ExperimentConfig = _read(ExperimentConfig, values)
    return experiment


def read_run(values: Mapping[str, Any]) -> RunConfig:
    """Read back a run's config.json. Raises InputError as `read_experiment` does."""
    run: RunConfig = _read(RunConfig, values)
    return run


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON types, the inverse of the readers."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


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
    """The first problem pydantic found, as one sentence with the key, the value and the choices."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path, owner = _known_path(cls, first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_key(".".join(path), known_keys(owner, "".join(f"{key}." for key in path[:-1])))
    if first["type"] == "union_tag_invalid":
        key, choices = first["ctx"]["discriminator"].strip("'"), first["ctx"]["expected_tags"]
        return f"{'.'.join(path)}.{key}={first['ctx']['tag']!r} is not valid: choose from {choices}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{'.'.join(path)} is missing: give it a value"
    if isinstance(first["input"], (list, tuple)):  # of a list in a list's place, the item at fault
        items = (
            p for p in problems if isinstance(p["loc"][-1], int) and _known_path(cls, p["loc"])[0] == path
        )
        first = next(items, first)
    same = [p for p in problems if p["input"] is first["input"] and _known_path(cls, p["loc"])[0] == path]
    reasons = " or ".join(dict.fromkeys(_plainly(problem["msg"]) for problem in same))
    return f"{'.'.join(path)}={first['input']!r} is not valid: {reasons}"


def known_keys(cls: Any = ExperimentConfig, prefix: str = "") -> list[str]:
    """Every key of an experiment, nested ones with dots."""
    keys: list[str] = []
    for key, hint in get_type_hints(cls).items():
        if key == "__pydantic_config__":
            continue
        sections = _sections(hint)
        keys += [inner for section in sections for inner in known_keys(section, f"{prefix}{key}.")]
        keys += [] if sections else [prefix + key]
    return list(dict.fromkeys(keys))


def _sections(hint: Any) -> list[Any]:
    """The dataclasses a field may hold: its own type, or the members of its union."""
    return [cls for cls in (hint, *get_args(hint)) if dataclasses.is_dataclass(cls)]


def _tagged(sections: list[Any], tag: str) -> Any:
    """The member of a union that pydantic names by `tag`, one of the values of its discriminator."""
    for section in sections:
        if any(tag in get_args(hint) for hint in get_type_hints(section).values()):
            return section
    return None


def unknown_key(key: str, choices: Iterable[str]) -> str:
    """One sentence refusing `key`, with the nearest valid keys and the others of its section."""
    valid = list(choices)
    near = difflib.get_close_matches(key, [*valid, *{choice.partition(".")[0] for choice in valid}], n=3)
    section = key.rpartition(".")[0]
    inside = [choice for choice in valid if choice.startswith(f"{section}.")] if section else []
    listed = inside or sorted({choice.partition(".")[0] for choice in valid})
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{key} is not a known key: {hint}valid are {', '.join(listed)}"


def _known_path(cls: Any, loc: tuple[Any, ...]) -> tuple[tuple[str, ...], Any]:
    """The part of a pydantic location that is config keys (union branch tags dropped), and its owner."""
    path: list[str] = []
    owner: Any = cls
    sections: list[Any] = [cls]
    for part in loc:
        if not isinstance(part, str) or not sections:
            continue
        if len(sections) > 1 and (member := _tagged(sections, part)) is not None:
            sections = [member]
            continue
        owner = sections[0]
        path.append(part)
        sections = _sections(get_type_hints(owner).get(part))
    return tuple(path), owner


def _plainly(reason: str) -> str:
    """Pydantic's words without Python's."""
    for python, plain in (
        ("Value error, ", ""),
        (" after validation", ""),
        ("Tuple", "list"),
        ("tuple", "list"),
        ("Input", "it"),
        ("input", "it"),
        (" a valid dictionary or object to extract fields from", " a section of keys"),
        (" a dictionary or an instance of", " a section of keys, see"),
    ):
        reason = reason.replace(python, plain)
    reason = re.sub(r"\b\d{10,}\b", lambda digits: f"{float(digits[0]):g}", reason)
    return reason[:1].lower() + reason[1:]
