"""Difficulty of documents under a bigram model, and its file."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sweep.data import difficulty as module
from sweep.data.difficulty import Difficulty, measure_difficulty, read_difficulty, write_difficulty
from sweep.data.token_files import Tokens
from sweep.errors import DataError

SEPARATOR = 0
V = 6


def split(documents: list[list[int]]) -> tuple[Tokens, np.ndarray]:
    ids = [token for document in documents for token in (*document, SEPARATOR)]
    return Tokens([np.array(ids, dtype=np.uint16)]), np.cumsum([len(d) + 1 for d in documents])


def measured(train: list[list[int]], heldout: list[list[int]]) -> Difficulty:
    tokens, ends = split(heldout)
    return measure_difficulty(split(train)[0], tokens, ends, vocab_size=V, separator=SEPARATOR)


def expected(counted: list[list[int]], ids: list[int]) -> float:
    """Mean -ln P of ids[1:] by the definition, with counts in the streams `counted`."""
    pairs = [pair for stream in counted for pair in pairwise(stream)]
    losses = []
    for context, target in pairwise(ids):
        of_target = (sum(t == target for _, t in pairs) + 0.5) / (len(pairs) + 0.5 * V)
        n = sum(pair == (context, target) for pair in pairs)
        n_context = sum(c == context for c, _ in pairs)
        losses.append(-np.log((n + 20 * of_target) / (n_context + 20)))
    return float(np.mean(losses))


def test_it_is_the_cross_entropy_of_a_bigram_model_without_the_document_itself() -> None:
    chance = np.random.default_rng(0)
    train = [chance.integers(1, V, size=30).tolist() for _ in range(4)]
    heldout = [chance.integers(1, 3, size=12).tolist(), [5, 5, 5]]
    found = measured(train, heldout)
    streams = [[SEPARATOR, *document, SEPARATOR] for document in train]
    streams[0] = streams[0][1:]  # nothing precedes the first token of a split
    joined = [token for stream in [streams[0], *(s[1:] for s in streams[1:])] for token in stream]
    values = [expected([joined], [*heldout[0], 0]), expected([joined], [0, *heldout[1], 0])]
    # the first document has no context for its first token: its sum is divided by one token more
    values[0] *= len(heldout[0]) / (len(heldout[0]) + 1)
    assert found.heldout == pytest.approx(np.array(values) * 1000, abs=1)
    own = sorted(expected([other for other in streams if other is not stream], stream) for stream in streams)
    assert found.train == pytest.approx(np.array(own) * 1000, abs=1)
    assert found.train_tokens.sum() == len(joined) - 1


def test_a_large_training_split_is_sampled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(1)
    train = [chance.integers(1, 2 + i % 4, size=50).tolist() for i in range(400)]
    whole = measured(train, [[1] * 20, [1, 4, 2, 3] * 5])
    monkeypatch.setattr(module, "SAMPLE_TOKENS", 4000)
    monkeypatch.setattr(module, "BLOCK_TOKENS", 100)
    sample = measured(train, [[1] * 20, [1, 4, 2, 3] * 5])
    assert sample.train_tokens.sum() == 4000 < whole.train_tokens.sum()
    assert sample.heldout == pytest.approx(whole.heldout, abs=100)
    means = [np.average(found.train, weights=found.train_tokens) for found in (sample, whole)]
    assert means[0] == pytest.approx(means[1], abs=100)


def test_text_between_two_blocks_of_the_sample_ends_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Tokens([np.ones(201, dtype=np.uint16)])
    monkeypatch.setattr(module, "BLOCK_TOKENS", 10)
    assert len(set(module._sample(train, SEPARATOR)[2].tolist())) == 1
    monkeypatch.setattr(module, "SAMPLE_TOKENS", 40)
    assert module._sample(train, SEPARATOR)[2].tolist() == np.repeat(np.arange(4), 10).tolist()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = measured([[1, 2, 3], [3, 2, 1]], [[1, 1], [2, 3]])
    assert read_difficulty(tmp_path, 2) is None
    write_difficulty(tmp_path, found)
    again = read_difficulty(tmp_path, 2)
    assert again is not None
    for name in ("heldout", "train", "train_tokens"):
        assert getattr(again, name).tolist() == getattr(found, name).tolist()
    assert [path.name for path in tmp_path.iterdir()] == [module.FILE]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"heldout": [1.5], "train": [1], "train_tokens": [1]}', '{"heldout": [1, 2]}']
)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / module.FILE).write_text(content)
    with pytest.raises(DataError, match=r"difficulty-1\.json .*: delete it and run sweep data prepare"):
        read_difficulty(tmp_path, 2)


def test_a_file_of_another_data_set_is_rejected(tmp_path: Path) -> None:
    write_difficulty(tmp_path, measured([[1, 2, 3], [3, 2, 1]], [[1, 1], [2, 3]]))
    with pytest.raises(DataError, match="does not match its manifest of 3 held-out documents"):
        read_difficulty(tmp_path, 3)
