"""Overlap of held-out with training text, against a count with Python's sets."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sweep.data import overlap
from sweep.data.overlap import N_GRAM, measure_overlap
from sweep.data.shards import HeldOut
from sweep.data.token_files import Tokens


def held_out(documents: list[list[int]]) -> HeldOut:
    ends = np.cumsum([len(document) + 1 for document in documents])
    tokens = np.concatenate([np.array([*document, 0], np.uint16) for document in documents])
    return HeldOut(
        tokens=Tokens([tokens]),
        document_ends=ends,
        token_bytes=np.ones(256, np.int64),
        difficulty=None,
        corpus_sha256="",
        tokenizer_file_sha256="",
    )


@pytest.mark.parametrize("block", [50, 2**20])
def test_it_counts_as_sets_of_n_grams_do(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(overlap, "BLOCK_TOKENS", block)
    chance = random.Random(0)
    train = chance.choices(range(1, 200), k=3000)
    copied, partly = train[100:200], [*train[500:520], *chance.choices(range(1, 200), k=100)]
    documents = [copied, chance.choices(range(1, 200), k=80), partly, [1, 2, 3], train[2980:]]
    shards = [np.array(train[:1111], np.uint16), np.array(train[1111:], np.uint16)]

    known = {tuple(train[at : at + N_GRAM]) for at in range(len(train) - N_GRAM + 1)}
    grams = [[tuple(d[at : at + N_GRAM]) for at in range(len(d) - N_GRAM + 1)] for d in documents]
    found = measure_overlap(Tokens(shards), held_out(documents))
    assert found.n_checked == sum(map(len, grams))
    assert found.n_found == sum(gram in known for one in grams for gram in one) == 88 + 8 + 8
    assert (found.n_documents, found.n_documents_mostly_found) == (4, 2)
    assert found.share == found.n_found / found.n_checked


def test_a_long_split_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "MAX_CHECKED", 100)
    train = list(range(1, 5001))
    found = measure_overlap(
        Tokens([np.array(train, np.uint16)]), held_out([train[:1000], list(range(6000, 7000))])
    )
    assert (found.n_checked, found.n_found) == (100, 50)


def test_documents_shorter_than_an_n_gram_have_no_share() -> None:
    found = measure_overlap(Tokens([np.arange(1, 100, dtype=np.uint16)]), held_out([[1, 2], [3]]))
    assert (found.n_checked, found.share) == (0, None)
