"""Mixtures: shares of tokens, order, copies in several parts, resuming, and what is left of each part."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sweep.config import AnyTokenizerConfig, MixtureData, TextData
from sweep.data import encoding, mixing
from sweep.data.documents import Document, Dropped, document
from sweep.data.mixing import Part, in_turns
from sweep.data.shards import PreparedData, prepare
from sweep.errors import DataError, InputError
from tests.data.corpora import BPE, BYTE


def write(directory: Path, letters: str, n_documents: int, seed: int) -> None:
    directory.mkdir(exist_ok=True)
    chance = random.Random(seed)
    for number in range(n_documents):
        words = ("".join(chance.choices(letters, k=4)) for _ in range(chance.randint(20, 200)))
        (directory / f"{number:03d}.txt").write_text(" ".join(words))


@pytest.fixture
def mixture(tmp_path: Path) -> MixtureData:
    write(tmp_path / "web", "abcdef", 120, seed=0)
    write(tmp_path / "code", "uvwxyz", 60, seed=1)
    return MixtureData(
        source="mixture",
        parts={
            name: TextData(source="text", files=(f"{tmp_path}/{name}/*.txt",)) for name in ("web", "code")
        },
        weights={"web": 3.0, "code": 1.0},
        holdout_frac=0.1,
    )


def content(prepared: PreparedData) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prepared.directory.iterdir())}


@pytest.mark.parametrize("tokenizer", [BYTE, BPE])
def test_tokens_have_the_weights_and_all_are_accounted_for(
    tmp_path: Path, mixture: MixtureData, tokenizer: AnyTokenizerConfig
) -> None:
    prepared = prepare(mixture, tokenizer, tmp_path / "data")
    manifest = prepared.manifest
    code, web = manifest.parts
    assert (code.name, web.name) == ("code", "web")
    assert sum(part.n_tokens for part in manifest.parts) == len(prepared.train) + len(prepared.heldout.tokens)
    assert sum(part.n_tokens_held_out for part in manifest.parts) == manifest.heldout.n_tokens
    longest = 1001
    assert abs(web.n_tokens - 3 * code.n_tokens) <= 3 * longest
    assert {part.n_documents + part.n_documents_left for part in manifest.parts} == {60, 120}
    assert min(part.n_documents_left for part in manifest.parts) == 0  # the other part sets the size
    for part, folder in zip(manifest.parts, ("code", "web"), strict=True):
        n_bytes = sum(path.stat().st_size for path in (tmp_path / folder).iterdir())
        assert part.n_bytes + part.n_bytes_left == n_bytes
    if tokenizer is BYTE:  # the parts alternate: the first quarter has the weights, too
        first = bytes(prepared.train.read(0, len(prepared.train) // 4).tolist())
        n_code = sum(first.count(letter) for letter in b"uvwxyz")
        n_web = sum(first.count(letter) for letter in b"abcdef")
        assert n_web / n_code == pytest.approx(3, rel=0.3)


def test_it_resumes_to_the_same_bytes(
    tmp_path: Path, mixture: MixtureData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "READ_BYTES", 2000)
    monkeypatch.setattr(mixing, "ENCODE_BYTES", 1000)
    monkeypatch.setattr(encoding, "CHECKPOINT_BYTES", 2000)
    monkeypatch.setattr(encoding, "REPORT_BYTES", 100)
    whole = content(prepare(mixture, BYTE, tmp_path / "whole"))
    stops = iter((5_000, 20_000, 45_000))
    for stop in stops:

        def interrupt(stage: str, n_bytes: int, total: int, stop: int = stop) -> None:
            if stage == "tokenise" and n_bytes > stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(mixture, BYTE, tmp_path / "resumed", on_progress=interrupt)
    (left,) = (tmp_path / "resumed/prepared").glob(".*")
    assert len((left / encoding.ORDER).read_bytes()) > 10
    assert content(prepare(mixture, BYTE, tmp_path / "resumed")) == whole


def test_a_copy_in_another_part_is_used_once(tmp_path: Path, mixture: MixtureData) -> None:
    before = prepare(mixture, BYTE, tmp_path / "data").manifest
    for path in (tmp_path / "code").iterdir():  # the first documents of the other part
        (tmp_path / "web" / f"0-{path.name}").write_bytes(path.read_bytes())
    prepared = prepare(mixture, BYTE, tmp_path / "data")
    assert prepared.manifest.corpus_sha256 != before.corpus_sha256
    text = bytes(prepared.train.read(0, len(prepared.train)).tolist())
    documents = text.split(b"\0")[:-1]
    assert len(documents) == len(set(documents))
    assert any(set(document) <= set(b"uvwxyz ") for document in documents)


def test_weights_and_text_of_the_parts_are_its_identity(tmp_path: Path, mixture: MixtureData) -> None:
    from sweep.data.registry import scan

    first = scan(mixture).sha256
    assert scan(replace(mixture, parts=dict(reversed(mixture.parts.items())))).sha256 == first
    assert scan(replace(mixture, weights={"web": 2.0, "code": 1.0})).sha256 != first
    (tmp_path / "web/000.txt").write_text("other")
    assert scan(mixture).sha256 != first


def test_parts_that_cannot_be_used_are_named(tmp_path: Path, mixture: MixtureData) -> None:
    with pytest.raises(InputError, match=r"data\.weights are of web and data\.parts are web, code"):
        replace(mixture, weights={"web": 1.0})
    missing = TextData(source="text", files=("none/*.txt",))
    with pytest.raises(DataError, match=r"data\.parts\.code: data\.files=none/\*\.txt matches no file"):
        prepare(replace(mixture, parts={**mixture.parts, "code": missing}), BYTE, tmp_path / "data")
    with pytest.raises(InputError, match=r"data\.parts\.code\.holdout_frac has no effect, since"):
        replace(mixture, parts={**mixture.parts, "code": replace(missing, holdout_frac=0.5)})


def test_text_is_read_and_encoded_while_earlier_documents_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "READ_BYTES", 4)
    monkeypatch.setattr(mixing, "ENCODE_BYTES", 2)
    was_read, was_encoded = [threading.Event() for _ in range(8)], [threading.Event() for _ in range(8)]

    def read() -> Iterator[Document]:
        for number in range(8):
            was_read[number].set()
            yield document(f"{number}", f"{number}{number}".encode())

    class Slow:
        def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
            for found in documents:
                was_encoded[int(found.name)].set()
            return [np.array([int(found.name)]) for found in documents]

    before = threading.enumerate()
    turns = in_turns([Part(name="all", weight=1.0, read=read)], Slow().encode, (), [0], Dropped())
    assert next(turns)[1].name == "0"  # of the chunk 0, 1
    assert was_read[3].wait(10)
    assert was_encoded[1].wait(10)
    assert not was_encoded[2].is_set()
    assert not was_read[6].wait(0.05)  # no more than a chunk in advance
    assert [found.name for _, found, _ in turns] == list("1234567")
    assert {thread.name for thread in threading.enumerate()} == {thread.name for thread in before}
