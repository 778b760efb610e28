import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.data import documents as documents_module
from sweep.data.documents import Seen, chunks, decoded, distinct, document, is_held_out
from sweep.errors import DataError


def test_held_out_fraction_and_dependence_on_content() -> None:
    found = [document(str(i), f"text {i}".encode()) for i in range(4000)]
    n_held_out = sum(is_held_out(one, 0.1) for one in found)
    assert abs(n_held_out - 400) < 5 * (4000 * 0.1 * 0.9) ** 0.5
    assert all(
        is_held_out(one, 0.1) == (int(hashlib.sha256(one.content).hexdigest()[:16], 16) / 2**64 < 0.1)
        for one in found
    )
    assert {one.name for one in found if is_held_out(one, 0.1)} <= {
        one.name for one in found if is_held_out(one, 0.2)
    }


@given(st.lists(st.integers(0, 30), max_size=120), st.integers(1, 7))
@settings(deadline=None)
def test_duplicates_are_dropped_at_any_distance(numbers: list[int], chunk: int) -> None:
    texts = [document(str(place), str(number).encode()) for place, number in enumerate(numbers)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_module, "CHUNK_DOCUMENTS", chunk)
        found = [int(text.name) for text in distinct(texts)]
    assert found == [place for place, number in enumerate(numbers) if number not in numbers[:place]]


@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=12))
@settings(deadline=None)
def test_seen_keys_equal_a_set_and_need_little_memory(rounds: list[list[int]]) -> None:
    seen, known = Seen(), set()
    for keys in rounds:
        news = seen.add(np.array(keys, dtype=np.uint64)).tolist()
        for key, is_new in zip(keys, news, strict=True):
            assert is_new == (key not in known)
            known.add(key)
    sizes = [len(array) for array in seen._arrays]
    assert sum(sizes) == len(known)
    assert all(one > 2 * other for one, other in pairwise(sizes))


def test_chunks_are_bounded_in_bytes_and_number() -> None:
    texts = [document(str(i), b"x" * i) for i in range(20)]
    found = list(chunks(texts, 30, 4))
    assert [text for chunk in found for text in chunk] == texts
    assert all(len(chunk) <= 4 for chunk in found)
    assert all(sum(len(text.content) for text in chunk[:-1]) < 30 for chunk in found)
    assert list(chunks([], 30)) == []


def test_invalid_utf8_and_too_long_documents_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoded(document("fine", "grün".encode())) == "grün"
    with pytest.raises(DataError, match="odd: byte 0xfc at offset 2 is not UTF-8 text: convert"):
        decoded(document("odd", "grün".encode("latin-1")))
    monkeypatch.setattr(documents_module, "MAX_DOCUMENT_BYTES", 2**20)
    document("long", b"x" * 2**20)
    with pytest.raises(DataError, match="long is one document of more than 1 MiB: split it"):
        document("long", b"x" * (2**20 + 1))
