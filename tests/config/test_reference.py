"""docs/config.md is current, and documents every key with its meaning and, for a number, its unit."""

import runpy
from pathlib import Path
from typing import get_args, get_type_hints

from sweep.config.reading import key_fields

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "config_reference"))
FIELDS = [(key, cls, field.name) for key, cls, field in key_fields() if key != "arm"]


def test_the_page_is_current():
    assert SCRIPT["PAGE"].read_text() == SCRIPT["reference"](), "run scripts/config_reference"


def test_every_key_has_a_meaning_and_every_number_a_unit():
    """A docstring under its field, which ends with `Unit: ...` where the key may be a number."""
    lacking = []
    for key, cls, name in FIELDS:
        meaning, unit = SCRIPT["meaning_and_unit"](cls, name)
        is_number = bool({int, float} & set(leaves(get_type_hints(cls)[name])))
        if not meaning or (is_number and not unit):
            lacking.append(f"{cls.__name__}.{name} ({key})")
    assert lacking == []


def leaves(hint):
    """The plain types within a hint."""
    arguments = [part for part in get_args(hint) if part is not Ellipsis]
    return [hint] if not arguments else [leaf for part in arguments for leaf in leaves(part)]
