"""Recognition of a table's columns by the names people use, with the units in those names."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sweep.config import ColumnsConfig
from sweep.errors import InputError
from sweep.fit.table.numbers import unit_factor, unit_name

DEFAULT_COLUMNS = ColumnsConfig()


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """The column that holds a field, and the conversion of its numbers."""

    field: str
    name: str
    factor: float = 1.0  # of the unit in its name
    logarithm: bool = False  # the field is the natural logarithm of the column, as the loss of a perplexity

    @property
    def note(self) -> str | None:
        """A sentence about how the column is read; None for a column with the field's own name."""
        if self.name == self.field and self.factor == 1 and not self.logarithm:
            return None
        unit = "" if self.factor == 1 else f" in {unit_name(self.factor, self.field)}"
        log = ", by its natural logarithm" if self.logarithm else ""
        return f'column "{self.name}" read as {self.field}{unit}{log}'


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Words of a field's usual column names: at least one of `heads`, all of `needs`, else `modifiers`."""

    heads: frozenset[str]
    modifiers: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    def matches(self, words: Sequence[str]) -> bool:
        """Return true for a name made of these words. A single letter is a head in upper case only."""
        lower = {word.lower() for word in words}
        heads = {word.lower() for word in words if (word if len(word) == 1 else word.lower()) in self.heads}
        return bool(heads) and self.needs <= lower <= heads | self.modifiers | self.needs


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPTIMUM = "opt optimal optimum star"
_PARAMS = Vocabulary(
    heads=_words("N params param parameters parameter nparams"),
    modifiers=_words(f"n num no number of total model count size trainable {_OPTIMUM}"),
)
_TOKENS = Vocabulary(
    heads=_words("D tokens token ntokens"),
    modifiers=_words(f"n num number of total training train trained seen count data dataset size {_OPTIMUM}"),
)
_HELD_OUT = "val valid validation eval evaluation test heldout held out final lm mean"
VOCABULARIES: dict[str, tuple[Vocabulary, ...]] = {
    "n_params": (_PARAMS, Vocabulary(heads=_words("size"), needs=_words("model"))),
    "n_tokens": (_TOKENS, Vocabulary(heads=_words("size"), needs=_words("dataset"))),
    "flops": (
        Vocabulary(
            heads=_words("C flops flop compute"),
            modifiers=_words("n num number of total training train count"),
        ),
    ),
    "loss": (
        Vocabulary(
            heads=_words("L loss nll ce entropy"), modifiers=_words(f"{_HELD_OUT} cross min {_OPTIMUM}")
        ),
    ),
    "flops_budget": (
        Vocabulary(
            heads=_words("budget isoflop"), modifiers=_words("flops flop compute c target planned training")
        ),
    ),
    "n_params_non_embedding": tuple(
        Vocabulary(heads=_words(head), modifiers=_PARAMS.heads | _PARAMS.modifiers, needs=_words(needs))
        for head, needs in (
            ("embedding", "non"),
            ("embeddings", "without"),
            ("embeddings", "non"),
            ("nonembedding", ""),
        )
    ),
    "n_tokens_unique": (
        Vocabulary(heads=_TOKENS.heads, modifiers=_TOKENS.modifiers, needs=_words("unique")),
    ),
}
PERPLEXITY = Vocabulary(heads=_words("ppl perplexity"), modifiers=_words(_HELD_OUT))
TRAIN_LOSS = Vocabulary(
    heads=_words("loss"), modifiers=_words("final lm mean smoothed"), needs=_words("train")
)
TRAINING_LOSS = dataclasses.replace(TRAIN_LOSS, needs=_words("training"))
UNIT_WORDS = 3  # at most, at the end of a name: "in PF days"
_SCALED = re.compile(r"(.+?)\s*\*\s*([0-9][0-9.]*(?:e[+-]?\d+)?)", re.IGNORECASE)
_LOGARITHM = re.compile(r"(?:ln|log)\((.+)\)", re.IGNORECASE)


def find_columns(
    given: Sequence[str], columns: ColumnsConfig, is_numeric: Callable[[str], bool], source: str
) -> dict[str, Column]:
    """Return the column of each field that the table has, by field.

    A name in `columns` other than the field's own is used as given; it may end in a factor ("Size * 1e6") or
    be a logarithm ("ln(ppl)"). Else the field's own name is used, else the one column of numbers whose name
    is usual for the field.

    Raises:
        InputError: a column named in `columns` is absent, or two columns are usual names of one field.
    """
    found: dict[str, Column] = {}
    for item in dataclasses.fields(ColumnsConfig):
        field, name = item.name, getattr(columns, item.name)
        if name != getattr(DEFAULT_COLUMNS, field):
            found[field] = _as_named(field, name, given, source)
        elif field in given:
            found[field] = Column(field=field, name=field)
    taken = {column.name for column in found.values()}
    for field in VOCABULARIES:
        if field not in found:
            free = [name for name in given if name not in taken]
            column = _by_usual_name(field, free, is_numeric, source)
            if column is not None:
                found[field] = column
    return found


def _as_named(field: str, name: str, given: Sequence[str], source: str) -> Column:
    if name in given:
        return _with_unit(field, name)
    scaled, logarithm = _SCALED.fullmatch(name), _LOGARITHM.fullmatch(name)
    if scaled and scaled[1] in given:
        return Column(field=field, name=scaled[1], factor=float(scaled[2]))
    if logarithm and logarithm[1] in given:
        return Column(field=field, name=logarithm[1], logarithm=True)
    raise InputError(
        f"{source}: column {name!r} not found among {', '.join(given) or 'no columns'}: give --column "
        f"{field}=NAME with one of them"
    )


def _with_unit(field: str, name: str) -> Column:
    """Return the column with the unit that ends its name, as in "Size (M)"."""
    if field == "loss" and PERPLEXITY.matches(name_words(name)):
        return Column(field=field, name=name, logarithm=True)
    words = name_words(name)
    units = (unit_factor(" ".join(words[-n:]), field) for n in (3, 2, 1) if len(words) >= n)
    known = next((unit for unit in units if unit is not None), 1.0)
    return Column(field=field, name=name, factor=known)


def _by_usual_name(
    field: str, given: Sequence[str], is_numeric: Callable[[str], bool], source: str
) -> Column | None:
    tiers: list[Callable[[str], Column | None]] = [lambda name: _usual(field, name, VOCABULARIES[field])]
    if field == "loss":  # held-out losses first, as every law is about them
        tiers += [
            lambda name: _perplexity(name),
            lambda name: _usual(field, name, (TRAIN_LOSS, TRAINING_LOSS)),
        ]
    for tier in tiers:
        candidates = [column for name in given if (column := tier(name)) is not None and is_numeric(name)]
        if len(candidates) > 1:
            names = " and ".join(f'"{column.name}"' for column in candidates)
            raise InputError(
                f"{source}: columns {names} could all be {field}: choose one with --column "
                f'{field}="{candidates[0].name}"'
            )
        if candidates:
            return candidates[0]
    return None


def has_usual_name(field: str, name: str) -> bool:
    """Return whether the name of a column is usual for a field that is required, numbers or not."""
    return _usual(field, name, VOCABULARIES[field]) is not None


def _perplexity(name: str) -> Column | None:
    matches = PERPLEXITY.matches(name_words(name))
    return Column(field="loss", name=name, logarithm=True) if matches else None


def _usual(field: str, name: str, vocabularies: Sequence[Vocabulary]) -> Column | None:
    """Return the column if its name is words of the field, followed by a unit or none."""
    words = name_words(name)
    for n_unit in range(min(UNIT_WORDS, len(words)) + 1):
        head, unit = words[: len(words) - n_unit], words[len(words) - n_unit :]
        factor = unit_factor(" ".join(unit), field) if unit else 1.0
        if factor is None:
            continue
        if any(vocabulary.matches(head) for vocabulary in vocabularies):
            return Column(field=field, name=name, factor=factor)
        alone = field == "flops" and factor > 1 and any("f" in word.lower() for word in unit)
        if alone and set(map(str.lower, head)) <= VOCABULARIES[field][0].modifiers:  # "GFLOPs", "PF-days"
            return Column(field=field, name=name, factor=factor)
    return None


def name_words(name: str) -> list[str]:
    """Return the words of a column's name: at blanks, marks and changes from lower to upper case."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    return re.findall(r"[^\W_]+(?:[.^+][^\W_]+)*", text)


def is_optimum(name: str) -> bool:
    """Return true for the name of a column of optima, such as N_opt."""
    return bool({word.lower() for word in name_words(name)} & _words(_OPTIMUM))


def column_notes(found: Mapping[str, Column]) -> tuple[str, ...]:
    """Return a sentence about each column that is read under another name or in another unit."""
    return tuple(note for column in found.values() if (note := column.note) is not None)
