"""Run keys: the fields that change them, and stability across versions."""

from dataclasses import dataclass, fields, replace

import pytest

from sweep.identity import LABELS, code_version, run_key
from tests.configs import tiny_run

OTHER = {
    "name": "other",
    "experiment": "other",
    "arm": "other",
    "flops_budget": 1e9,
    "corpus": "other",
    "corpus_sha256": "2" * 64,
    "tokenizer": "other",
    "tokenizer_sha256": "3" * 64,
    "batch_tokens": 128,
    "n_tokens": 64 * 80,
    "precision": "bf16",
    "parametrization": "mup",
    "seed": 1,
    "purpose": "hparam_check",
    "semantics_version": 99,
}


@pytest.mark.parametrize("field", [field.name for field in fields(tiny_run())])
def test_the_key_depends_on_every_field_except_labels(field):
    run = tiny_run()
    values = {
        "model": replace(run.model, rope_base=7.0),
        "optimizer": replace(run.optimizer, eps=1e-9),
        "schedule": replace(run.schedule, final_lr_frac=0.5),
        "evaluation": replace(run.evaluation, n_tokens=512),
        **OTHER,
    }
    other = replace(run, **{field: values[field]})
    assert (run_key(other) == run_key(run)) == (field in LABELS)


def test_a_new_field_at_its_default_changes_no_key():
    """A field that is added later with a default leaves the keys of existing runs unchanged."""

    @dataclass(frozen=True, kw_only=True)
    class Later(type(tiny_run())):
        added: int = 7

    values = {field.name: getattr(tiny_run(), field.name) for field in fields(tiny_run())}
    assert run_key(Later(**values)) == run_key(tiny_run())
    assert run_key(Later(**values, added=8)) != run_key(tiny_run())


def test_the_key_of_a_known_run():
    """The key that the first version computed: a result must be found under it by every later version."""
    assert run_key(tiny_run()) == "20484c1f31792388"


def test_key_is_sixteen_hex_digits():
    key = run_key(tiny_run())
    assert len(key) == 16
    int(key, 16)


def test_code_version_contains_release_and_source_hash():
    release, _, digest = code_version().partition("+")
    assert release
    assert len(digest) == 12
