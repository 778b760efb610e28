from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.config import EvaluationConfig
from sweep.data import difficulty
from sweep.data.batches import EvaluationWindows, TrainBatches, evaluation_windows
from sweep.data.shards import HeldOut, PreparedData, open_prepared
from sweep.data.token_files import Tokens
from sweep.errors import DataError
from tests.data.corpora import BPE, Prepare


def counting(n_tokens: int, shard: int = 10**9) -> Tokens:
    whole = np.arange(n_tokens, dtype=np.uint16)
    return Tokens(np.split(whole, range(shard, n_tokens, shard)))


@given(
    n_tokens=st.integers(10, 400),
    seq_len=st.integers(1, 9),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    shard=st.integers(3, 500),
)
@settings(max_examples=60, deadline=None)
def test_each_epoch_contains_every_window_once(
    n_tokens: int, seq_len: int, batch_size: int, seed: int, shard: int
) -> None:
    n_windows = (n_tokens - 1) // seq_len
    batch_size = min(batch_size, n_windows)
    batches = TrainBatches(counting(n_tokens, shard), seq_len, batch_size, seed)
    n_steps = 3 * n_windows // batch_size
    rows = np.concatenate([batches.at(step) for step in range(n_steps)])
    assert (np.diff(rows, axis=1) == 1).all()  # each row is a run of consecutive tokens
    for epoch in range(len(rows) // n_windows):
        targets = rows[epoch * n_windows : (epoch + 1) * n_windows, 1:].ravel()
        assert sorted(targets.tolist()) == list(range(1, n_windows * seq_len + 1))
    assert n_tokens - 1 - n_windows * seq_len < seq_len
    assert batches.n_windows == n_windows
    assert batches.n_tokens_unique(n_steps) == len(set(rows[:, 1:].ravel().tolist()))
    assert batches.n_tokens_unique(1) == batch_size * seq_len


def test_a_batch_depends_only_on_seed_and_step() -> None:
    steps = [0, 5000, 3, 1999, 2000, 3, 0]
    one = TrainBatches(counting(60_000), 4, 3, seed=7)
    in_this_order = {step: one.at(step) for step in steps}
    for step in sorted(steps, reverse=True):
        fresh = TrainBatches(counting(60_000, shard=777), 4, 3, seed=7).at(step)
        assert fresh.tolist() == in_this_order[step].tolist()


def test_changing_a_returned_batch_has_no_effect_on_later_ones() -> None:
    batches = TrainBatches(counting(1000), 8, 4, seed=0)
    before = batches.at(2)
    batches.at(2)[:] = -1
    assert batches.at(2).tolist() == before.tolist()
    assert (before.dtype, before.shape, before.flags.c_contiguous) == (np.int64, (4, 9), True)


def test_seeds_and_epochs_have_different_orders() -> None:
    def epoch(seed: int, number: int) -> tuple[int, ...]:
        batches = TrainBatches(counting(1001), 10, 10, seed)
        return tuple(np.concatenate([batches.at(10 * number + i)[:, 0] for i in range(10)]).tolist())

    orders = [epoch(seed, number) for seed in range(4) for number in range(4)]
    assert len(set(orders)) == 16
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_micro_batches_are_parts_of_the_batch() -> None:
    batches = TrainBatches(counting(5000, shard=333), 16, 10, seed=1)
    parts = [batches.rows(4, start, min(start + 3, 10)) for start in range(0, 10, 3)]
    assert np.concatenate(parts).tolist() == batches.at(4).tolist()


def test_a_batch_may_span_two_epochs() -> None:
    batches = TrainBatches(counting(71), 10, 5, seed=0)  # 7 windows
    first = np.concatenate([batches.at(0), batches.at(1)])[:, 0]
    assert sorted(first[:7].tolist()) == list(range(0, 70, 10))
    assert max(Counter(first.tolist()).values()) == 2


@pytest.mark.parametrize(("n_tokens", "seq_len", "batch_size"), [(64, 64, 1), (640, 64, 10), (0, 1, 1)])
def test_fewer_tokens_than_one_batch_are_rejected(n_tokens: int, seq_len: int, batch_size: int) -> None:
    needed = seq_len * batch_size + 1
    with pytest.raises(
        DataError, match=rf"has {n_tokens} tokens, one batch needs {needed} \({batch_size} windows"
    ):
        TrainBatches(counting(n_tokens), seq_len, batch_size, 0)
    assert TrainBatches(counting(needed), seq_len, batch_size, 0).at(0).shape == (batch_size, seq_len + 1)


# --- held-out windows --------------------------------------------------------------------------------


def even_windows(heldout: HeldOut, seq_len: int, n_tokens: int) -> EvaluationWindows:
    return evaluation_windows(heldout, seq_len, EvaluationConfig(n_tokens=n_tokens))


@pytest.fixture
def prepared(prepare_texts: Prepare) -> PreparedData:
    return prepare_texts(tokenizer=BPE, max_shard_tokens=700)


@pytest.mark.parametrize(("seq_len", "n_tokens"), [(16, 160), (16, 161), (7, 500), (64, 1)])
def test_windows_have_the_requested_size_and_their_documents(
    prepared: PreparedData, seq_len: int, n_tokens: int
) -> None:
    heldout = prepared.heldout
    windows = even_windows(heldout, seq_len, n_tokens)
    assert windows.tokens.shape == (-(-n_tokens // seq_len), seq_len + 1)
    assert windows.n_tokens == windows.documents.size == len(windows.tokens) * seq_len
    # reference: search for each window token by token in the whole split
    whole = heldout.tokens.read(0, len(heldout.tokens))
    owner = np.repeat(np.arange(len(heldout.document_ends)), np.diff(heldout.document_ends, prepend=0))
    positions, at = [], 0
    for row, owners in zip(windows.tokens, windows.documents, strict=True):
        while whole[at : at + seq_len + 1].tolist() != row.tolist() or (
            owner[at + 1 : at + seq_len + 1].tolist() != owners.tolist()
        ):
            at += 1
        positions.append(at)
    assert (np.diff(positions) >= seq_len).all()
    scored = [token for place in positions for token in whole[place + 1 : place + seq_len + 1].tolist()]
    assert windows.n_bytes == sum(int(heldout.token_bytes[token]) for token in scored)


def test_windows_cover_the_whole_split(prepared: PreparedData) -> None:
    n_tokens = len(prepared.heldout.tokens)
    windows = even_windows(prepared.heldout, 8, n_tokens // 3)
    assert windows.documents[0, 0] == 0
    assert windows.documents[-1, -1] == prepared.manifest.heldout.n_documents - 1
    lengths = np.diff(prepared.heldout.document_ends, prepend=0)
    scored = np.bincount(windows.documents.ravel(), minlength=len(lengths))
    assert np.abs(scored - lengths / 3).max() <= 8 + 1  # in proportion, to within a window


def test_the_hash_of_windows_depends_on_their_size_and_number(prepared: PreparedData) -> None:
    same = even_windows(prepared.heldout, 8, 80)
    assert even_windows(prepared.heldout, 8, 80).sha256 == same.sha256
    others = [even_windows(prepared.heldout, 8, 88), even_windows(prepared.heldout, 16, 80)]
    assert len({same.sha256, *(other.sha256 for other in others)}) == 3


def test_at_most_the_whole_split_can_be_scored(prepared: PreparedData) -> None:
    n_tokens = len(prepared.heldout.tokens)
    assert even_windows(prepared.heldout, 1, n_tokens - 1).n_tokens == n_tokens - 1
    sentence = (
        rf"evaluation\.n_tokens=10,000,000 is too large: .* the held-out text has {n_tokens:,}: lower it"
    )
    with pytest.raises(DataError, match=sentence):
        even_windows(prepared.heldout, 8, 10_000_000)


def test_stratified_windows_have_the_requested_size_and_stay_in_the_document_they_begin_in(
    prepared: PreparedData,
) -> None:
    heldout = prepared.heldout
    windows = evaluation_windows(heldout, 8, EvaluationConfig(n_tokens=161, selection="stratified"))
    assert windows.tokens.shape == (21, 9)
    whole = heldout.tokens.read(0, len(heldout.tokens)).tolist()
    tiles = {tuple(whole[start : start + 9]): start for start in range(0, len(whole) - 8, 8)}
    assert len(tiles) == (len(whole) - 1) // 8
    starts = [tiles[tuple(row)] for row in windows.tokens.tolist()]
    assert starts == sorted(set(starts))
    first = np.searchsorted(heldout.document_ends, np.array(starts) + 1, side="right")
    assert windows.documents.tolist() == np.repeat(first[:, None], 8, axis=1).tolist()
    assert windows.strata is not None
    assert windows.strata.shape == windows.documents.shape
    assert windows.sha256 != even_windows(heldout, 8, 161).sha256


def test_all_windows_can_be_selected(prepared: PreparedData) -> None:
    n_windows = (len(prepared.heldout.tokens) - 1) // 8
    config = EvaluationConfig(n_tokens=8 * n_windows, selection="stratified")
    assert len(np.unique(evaluation_windows(prepared.heldout, 8, config).tokens, axis=0)) == n_windows


def test_data_prepared_by_an_earlier_version_gets_its_difficulty_by_preparing_it_again(
    prepare_texts: Prepare,
) -> None:
    config = EvaluationConfig(n_tokens=80, selection="stratified")
    before = prepare_texts()
    path = before.directory / difficulty.FILE
    content = path.read_bytes()
    path.unlink()
    manifest = before.manifest
    old = open_prepared(
        before.directory.parents[1], manifest.corpus_sha256, manifest.tokenizer_sha256
    ).heldout
    with pytest.raises(DataError, match="selection=stratified needs: run sweep data prepare"):
        evaluation_windows(old, 8, config)
    again = prepare_texts().heldout
    assert path.read_bytes() == content
    windows = [evaluation_windows(heldout, 8, config) for heldout in (before.heldout, again)]
    assert windows[0].sha256 == windows[1].sha256
