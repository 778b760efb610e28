"""docs/config.md is current, and documents every key with its meaning and, for a number, its unit."""

import runpy
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from sweep.config.reading import key_fields

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "config_reference"))
FIELDS = [(key, cls, field.name) for key, cls, field in key_fields() if key != "arm"]


def test_the_page_is_current():
    assert SCRIPT["PAGE"].read_text() == SCRIPT["reference"](), "run scripts/config_reference"


@pytest.mark.parametrize(("key", "cls", "name"), FIELDS)
def test_a_key_has_a_meaning_and_a_number_a_unit(key, cls, name):
    meaning, unit = SCRIPT["meaning_and_unit"](cls, name)
    assert meaning, f"{key} needs a docstring under its field in {cls.__name__}"
    if {int, float} & set(leaves(get_type_hints(cls)[name])):
        assert unit, f"{key} needs a unit: end its docstring with `Unit: ...`"


def leaves(hint):
    """The plain types within a hint."""
    arguments = [part for part in get_args(hint) if part is not Ellipsis]
    return [hint] if not arguments else [leaf for part in arguments for leaf in leaves(part)]
