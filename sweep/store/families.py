"""Families of runs: the settings that all sizes of a plan share, and their differences between plans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.config import ExperimentConfig, RunConfig, to_dict
from sweep.config.effects import without_effect
from sweep.config.reading import literal
from sweep.errors import DataError
from sweep.store.plans import StoredPlan, find_plan
from sweep.store.run_store import RunStore

SIZES_AND_EXECUTION = frozenset(
    "name arm results_dir data_dir budgets seeds grid model.width_multiple trainer launch estimate fit "
    "tracking store hparam_check adaptive".split()
)
"""Keys that choose sizes, budgets and seeds, or change no result. All others belong to the family."""

BY_CONTENT = frozenset(("data", "tokenizer"))
"""Sections that are compared by the hash of their content."""

_UNKNOWN = object()
_MAX_SHOWN = 5  # differences listed in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Settings that the runs of a plan have in common, independent of their size."""

    experiment: ExperimentConfig
    corpus_sha256: str | None  # None: no config.json of the plan is left
    tokenizer_sha256: str | None
    semantics_version: int | None
    sets: Mapping[str, str] | None  # corpus_sha256 of the evaluation sets by name


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A setting in which two families differ."""

    key: str
    stored: str  # in the grammar of overrides
    given: str


def family_of(experiment: ExperimentConfig, run: RunConfig | None) -> Family:
    """Return the family of an experiment; `run` is any of its runs, None where none can be read."""
    return Family(
        experiment=experiment,
        corpus_sha256=None if run is None else run.corpus_sha256,
        tokenizer_sha256=None if run is None else run.tokenizer_sha256,
        semantics_version=None if run is None else run.semantics_version,
        sets=None if run is None else {one.name: one.corpus_sha256 for one in run.evaluation.sets},
    )


def stored_family(store: RunStore, plan: StoredPlan) -> Family:
    """Return the family of a stored plan, from its experiment and the first readable run config."""
    for entry in plan.entries:
        try:
            return family_of(plan.experiment, store.run_config(entry.run_key))
        except DataError:
            continue
    return family_of(plan.experiment, None)


def differences(stored: Family, given: Family) -> tuple[Difference, ...]:
    """Return the settings in which two families differ; keys without effect in both do not count."""
    one, other = _settings(stored.experiment), _settings(given.experiment)
    keys = [key for key in {**one, **other} if one.get(key, _UNKNOWN) != other.get(key, _UNKNOWN)]
    idle = without_effect(stored.experiment, keys).keys() & without_effect(given.experiment, keys).keys()
    found = [
        Difference(key=key, stored=literal(one.get(key)), given=literal(other.get(key)))
        for key in keys
        if key not in idle
    ]
    return (*found, *_content_differences(stored, given))


def _settings(experiment: ExperimentConfig) -> dict[str, Any]:
    values = {k: v for k, v in to_dict(experiment).items() if k not in SIZES_AND_EXECUTION | BY_CONTENT}
    values["evaluation"].pop("sets")  # compared by content
    return {key: value for key, value in _flat(values) if key not in SIZES_AND_EXECUTION}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _content_differences(stored: Family, given: Family) -> Iterator[Difference]:
    """Yield the differences of corpus, tokenizer and meaning of a run config."""
    new_corpus = _differ(stored.corpus_sha256, given.corpus_sha256)
    if new_corpus:
        yield from _section_differences("data", stored, given, stored.corpus_sha256, given.corpus_sha256)
    same_recipe = stored.experiment.tokenizer == given.experiment.tokenizer
    if _differ(stored.tokenizer_sha256, given.tokenizer_sha256) and not (new_corpus and same_recipe):
        yield from _section_differences(
            "tokenizer", stored, given, stored.tokenizer_sha256, given.tokenizer_sha256
        )
    elif _differ(*(getattr(f.experiment.tokenizer, "vocab_size", None) for f in (stored, given))):
        yield from _section_differences("tokenizer", stored, given, None, None)
    yield from _set_differences(stored, given)
    if _differ(stored.semantics_version, given.semantics_version):
        yield Difference(
            key="semantics_version",
            stored=str(stored.semantics_version),
            given=str(given.semantics_version),
        )


def _section_differences(
    section: str, stored: Family, given: Family, stored_sha256: str | None, given_sha256: str | None
) -> Iterator[Difference]:
    """Yield the keys of a section that differ, or its content where all keys are equal."""
    one, other = (dict(_flat(to_dict(getattr(f.experiment, section)))) for f in (stored, given))
    keys = [key for key in {**one, **other} if one.get(key, _UNKNOWN) != other.get(key, _UNKNOWN)]
    for key in keys:
        yield Difference(key=f"{section}.{key}", stored=literal(one.get(key)), given=literal(other.get(key)))
    if not keys and stored_sha256 and given_sha256:
        yield Difference(
            key=f"content of {section}",
            stored=f"sha256:{stored_sha256[:8]}",
            given=f"sha256:{given_sha256[:8]}",
        )


def _set_differences(stored: Family, given: Family) -> Iterator[Difference]:
    """Yield the evaluation sets that one family lacks or that hold other text."""
    if stored.sets is None or given.sets is None:
        return
    for name in sorted({name for name, _ in stored.sets.items() ^ given.sets.items()}):
        one, other = (to_dict(f.experiment)["evaluation"]["sets"] or {} for f in (stored, given))
        key = f"evaluation.sets.{name}"
        if one.get(name) != other.get(name):
            yield Difference(key=key, stored=literal(one.get(name)), given=literal(other.get(name)))
        else:
            yield Difference(
                key=f"content of {key}",
                stored=f"sha256:{stored.sets[name][:8]}",
                given=f"sha256:{given.sets[name][:8]}",
            )


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def shown(found: Sequence[Difference], side: str) -> str:
    """Return one side of the differences, "stored" or "given", as a list of at most five settings."""
    listed = [f"{difference.key}={getattr(difference, side)}" for difference in found[:_MAX_SHOWN]]
    more = [f"{len(found) - _MAX_SHOWN} more"] if len(found) > _MAX_SHOWN else []
    return ", ".join([*listed, *more])


def outside_of_plan(store: RunStore, plan: str | None = None) -> dict[str, str]:
    """Return the runs that do not belong to the plan to fit, with the reason, for every arm.

    It is the plan `plan`, given by its hash, in the arm of that plan, and elsewhere the latest. Runs of other
    plans belong to it if they differ from it in sizes, budgets and seeds only. A run that no plan lists is
    left out only where the plan has a run of the same cell and seed.

    Raises InputError for an unknown plan.
    """
    plans = store.plans()
    chosen = {stored.experiment.arm: stored for stored in plans}
    if plan is not None:
        found = find_plan(plans, plan)
        chosen[found.experiment.arm] = found
    reasons: dict[str, str] = {}
    for arm, base in chosen.items():
        reasons |= _outside(store, [stored for stored in plans if stored.experiment.arm == arm], base)
    return reasons


def _outside(store: RunStore, plans: Sequence[StoredPlan], base: StoredPlan) -> dict[str, str]:
    """Return the runs of an arm's plans that are of another family than `base`, with the reason."""
    own = stored_family(store, base)
    found = {stored.hash: differences(own, stored_family(store, stored)) for stored in plans}
    newest_first = [base, *(stored for stored in reversed(plans) if stored is not base)]
    key_of: dict[str, str] = {}  # by name of the cell and seed
    kept: set[str] = set()
    reasons: dict[str, str] = {}
    for stored in newest_first:
        for entry in stored.entries:
            if not found[stored.hash] and key_of.setdefault(entry.name, entry.run_key) == entry.run_key:
                kept.add(entry.run_key)
    for stored in newest_first:
        reason = f"of plan {stored.hash[:8]}, with {shown(found[stored.hash], 'given')}"
        if not found[stored.hash]:
            reason = f"of plan {stored.hash[:8]}, which a later plan replaces at this cell and seed"
        reasons |= {
            entry.run_key: reason
            for entry in stored.entries
            if entry.run_key not in kept and entry.run_key not in reasons
        }
    return reasons


def nearest(
    store: RunStore, given: Family, plans: Iterable[StoredPlan]
) -> tuple[StoredPlan, tuple[Difference, ...]] | None:
    """Return the plan with the fewest differences from `given`, the latest of several; None without plans."""
    found = [(plan, differences(stored_family(store, plan), given)) for plan in plans]
    return min(reversed(found), key=lambda pair: len(pair[1]), default=None)
