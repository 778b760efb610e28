"""JSON encoding of frozen dataclasses by their fields.

`to_plain` and `from_plain` cover numbers, strings, arrays, tuples, mappings, optional values and nested
dataclasses. A class with `to_json` and `from_json` of its own is written and read by them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from sweep.fit.refusals import Refusal


def to_plain(value: Any) -> Any:
    """Return `value` as plain JSON types, at full float precision."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return fields_to_plain(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def fields_to_plain(record: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of a dataclass instance as plain JSON types, except those named in `without`."""
    names = (field.name for field in dataclasses.fields(record))
    return {name: to_plain(getattr(record, name)) for name in names if name not in without}


def from_plain(hint: Any, value: Any) -> Any:
    """Return the value of type `hint` that `to_plain` encoded as `value`.

    Raises:
        TypeError, ValueError, KeyError: `value` is not an encoding of that type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _from_union(arguments, value)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        members = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_plain(member, item) for member, item in zip(members, value, strict=True))
    if origin is np.ndarray:
        return np.asarray(value, dtype=np.float64)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: from_plain(arguments[1], item) for key, item in value.items()}
    if hasattr(hint, "from_json"):
        return hint.from_json(value)
    if dataclasses.is_dataclass(hint):
        return record_from_plain(hint, value)
    return _scalar(hint, value)


def record_from_plain(cls: Any, document: Mapping[str, Any]) -> Any:
    """Return an instance of dataclass `cls` from its fields in `document`; other keys are ignored.

    Raises:
        KeyError: a field without a default is missing.
    """
    hints = _hints(cls)
    return cls(
        **{
            field.name: from_plain(hints[field.name], document[field.name])
            for field in dataclasses.fields(cls)
            if field.name in document or field.default is dataclasses.MISSING
        }
    )


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _from_union(members: tuple[Any, ...], value: Any) -> Any:
    """Decode an optional value, or one that may be a Refusal in its place."""
    if value is None and NoneType in members:
        return None
    if Refusal in members and isinstance(value, Mapping) and "refused" in value:
        return Refusal.from_json(value)
    (member,) = (member for member in members if member not in (NoneType, Refusal))
    return from_plain(member, value)


def _scalar(hint: Any, value: Any) -> Any:
    accepted = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}[hint]
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"{value!r} is not of type {hint.__name__}")
    return value
