import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from sweep.config import StdlibData, TokenizerConfig
from sweep.data import registry as sources
from sweep.data import shards, staging
from sweep.data.documents import Document, is_held_out
from sweep.data.shards import PreparedData, find_manifest, open_prepared, prepare, prepare_documents
from sweep.data.sources.source import Source
from sweep.data.token_files import Tokens
from sweep.data.tokenizers.tokenizers import ByteTokenizer
from sweep.errors import DataError, InputError
from tests.data.corpora import BPE, BYTE, HOLDOUT_FRAC, Prepare, generated


def documents_of(tokens: Tokens, separator: int) -> list[list[int]]:
    """Cuts a split at its separators."""
    ids = tokens.read(0, len(tokens)).tolist()
    assert ids[-1] == separator
    found: list[list[int]] = [[]]
    for token in ids[:-1]:
        found.append([]) if token == separator else found[-1].append(token)
    return found


def reopen(data: PreparedData) -> PreparedData:
    names = data.manifest.corpus_sha256, data.manifest.tokenizer_sha256
    return open_prepared(data.directory.parents[1], *names)


@pytest.mark.parametrize("max_shard_tokens", [10**6, 997])
def test_bytes_come_back_as_they_went_in(
    texts: list[Document], prepare_texts: Prepare, max_shard_tokens: int
) -> None:
    data = prepare_texts(max_shard_tokens=max_shard_tokens)
    for tokens, held_out in ((data.train, False), (data.heldout.tokens, True)):
        expected = [text.content for text in texts if is_held_out(text, HOLDOUT_FRAC) == held_out]
        assert [bytes(ids) for ids in documents_of(tokens, 0)] == expected
    n_shards = len(data.manifest.train.shards)
    assert n_shards == -(-len(data.train) // max_shard_tokens)
    assert data.train.read(0, 10**6).max() < 256


def test_held_out_text_shares_no_document_with_training(prepare_texts: Prepare) -> None:
    data = prepare_texts(tokenizer=BPE)
    sides = [
        {tuple(ids) for ids in documents_of(tokens, data.manifest.separator)}
        for tokens in (data.train, data.heldout.tokens)
    ]
    assert all(sides)
    assert not sides[0] & sides[1]


@pytest.mark.parametrize("tokenizer", [BYTE, BPE])
def test_the_manifest_counts_what_is_there(
    texts: list[Document], prepare_texts: Prepare, tokenizer: TokenizerConfig
) -> None:
    data = prepare_texts(tokenizer=tokenizer, max_shard_tokens=1000)
    manifest = data.manifest
    for split, tokens, held_out in (
        (manifest.train, data.train, False),
        (manifest.heldout, data.heldout.tokens, True),
    ):
        mine = [text for text in texts if is_held_out(text, HOLDOUT_FRAC) == held_out]
        ids = tokens.read(0, len(tokens))
        assert split.n_documents == len(mine) == int((ids == manifest.separator).sum())
        assert split.n_tokens == len(tokens)
        assert split.n_bytes == sum(len(text.content) for text in mine) == data.heldout.token_bytes[ids].sum()
    ends = data.heldout.document_ends
    ids = data.heldout.tokens.read(0, len(data.heldout.tokens))
    assert (np.flatnonzero(ids == manifest.separator) + 1).tolist() == ends.tolist()
    assert manifest.vocab_size == tokenizer.vocab_size == len(data.heldout.token_bytes)
    assert manifest.corpus == "generated"
    data.verify()


def test_prepared_once(prepare_texts: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = prepare_texts(tokenizer=BPE)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(shards, "build_tokenizer", None)  # whoever tokenises again stumbles over this
    again = prepare_texts(tokenizer=BPE)
    assert again.manifest == first.manifest == reopen(first).manifest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


def test_prepare_reads_the_source_of_the_config(
    texts: list[Document], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = Source(name="stdlib", documents=lambda: iter([*texts, texts[0]]))
    monkeypatch.setitem(sources.SOURCES, "stdlib", lambda config: source)
    config = StdlibData(source="stdlib", holdout_frac=HOLDOUT_FRAC)
    seen: list[tuple[str, int, int]] = []
    data = prepare(config, BYTE, tmp_path, on_progress=lambda *report: seen.append(report))
    corpus = sources.scan(config)
    assert (data.manifest.corpus, data.manifest.corpus_sha256) == ("stdlib", corpus.sha256)
    assert find_manifest(tmp_path, corpus.sha256, data.manifest.tokenizer_sha256) == data.manifest
    assert seen[-1] == ("tokenise", corpus.n_bytes, corpus.n_bytes)


def test_the_tokenizer_learns_from_the_training_split_alone(tmp_path: Path) -> None:
    texts, others = generated(60), generated(60, seed=1)
    training = [text for text in texts if not is_held_out(text, HOLDOUT_FRAC)]
    held_outs = [[text for text in side if is_held_out(text, HOLDOUT_FRAC)] for side in (texts, others)]
    one, other = (
        prepare_documents(
            [*training, *held_out], name="x", holdout_frac=HOLDOUT_FRAC, tokenizer=BPE, data_dir=tmp_path
        ).manifest
        for held_out in held_outs
    )
    assert one.corpus_sha256 != other.corpus_sha256
    assert one.tokenizer_sha256 != other.tokenizer_sha256
    assert one.tokenizer_file_sha256 == other.tokenizer_file_sha256


# --- processes ---------------------------------------------------------------------------------------


def _prepare_together(data_dir: Path, barrier: Barrier, found: "multiprocessing.Queue[str]") -> None:
    barrier.wait()
    data = prepare_documents(
        generated(80), name="generated", holdout_frac=HOLDOUT_FRAC, tokenizer=BPE, data_dir=data_dir
    )
    data.verify()
    found.put(data.manifest.tokenizer_file_sha256)


def _prepare_until_killed(data_dir: Path) -> None:
    def die(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if n_bytes_done:
            os.kill(os.getpid(), signal.SIGKILL)

    prepare_documents(
        generated(80),
        name="generated",
        holdout_frac=HOLDOUT_FRAC,
        tokenizer=BYTE,
        data_dir=data_dir,
        on_progress=die,
    )


def test_two_processes_prepare_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, found = spawn.Barrier(3), spawn.Queue()
    workers = [spawn.Process(target=_prepare_together, args=(tmp_path, barrier, found)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert len({found.get(timeout=60) for _ in workers}) == 1
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list((tmp_path / "prepared").iterdir())) == 1  # the losers left nothing behind


def test_the_loser_of_a_race_takes_the_winners_files(prepare_texts: Prepare, tmp_path: Path) -> None:
    winners: list[PreparedData] = []

    def overtaken(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if not winners:
            winners.append(prepare_texts())

    data = prepare_texts(on_progress=overtaken)
    assert data.directory == winners[0].directory
    assert list((tmp_path / "prepared").iterdir()) == [data.directory]


def test_a_killed_process_leaves_nothing_to_be_mistaken_for_data(
    prepare_texts: Prepare, tmp_path: Path
) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_prepare_until_killed, args=(tmp_path,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    (rest,) = (tmp_path / "prepared").iterdir()
    assert rest.name.startswith(".")
    prepare_texts(holdout_frac=HOLDOUT_FRAC + 0.05)
    assert rest.is_dir()  # another corpus' affair
    data = prepare_texts()
    assert not rest.is_dir()  # its process is gone: taken up
    data.verify()
    assert {path.name for path in data.directory.iterdir()} == {
        "manifest.json",
        *(array.file for array in data.manifest.files),
    }


def test_abandoned_rests_are_removed_when_the_same_data_is_prepared(
    prepare_texts: Prepare, tmp_path: Path
) -> None:
    final = prepare_texts().directory
    young = final.rename(final.with_name(f".{final.name}.0123"))  # without a lock: nobody can know
    assert prepare_texts().directory == final
    assert young.is_dir()
    shutil.rmtree(final)
    long_ago = time.time() - 2 * staging.ABANDONED_AFTER_S
    os.utime(young, (long_ago, long_ago))
    prepare_texts()
    assert list((tmp_path / "prepared").iterdir()) == [final]


def test_an_error_on_the_way_leaves_nothing(prepare_texts: Prepare, tmp_path: Path) -> None:
    def fail(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if n_bytes_done:
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        prepare_texts(on_progress=fail)
    assert not list((tmp_path / "prepared").iterdir())


# --- what is refused ---------------------------------------------------------------------------------


def test_what_is_not_prepared_cannot_be_opened(tmp_path: Path) -> None:
    assert find_manifest(tmp_path, "a" * 64, "b" * 64) is None
    with pytest.raises(DataError, match=r"does not exist: the data is not prepared .* `sweep data prepare`"):
        open_prepared(tmp_path, "a" * 64, "b" * 64)


def test_a_truncated_shard_is_refused(prepare_texts: Prepare) -> None:
    data = prepare_texts()
    shard = data.directory / data.manifest.train.shards[0].file
    size = shard.stat().st_size
    os.truncate(shard, size - 2)
    for attempt in (lambda: reopen(data), prepare_texts):
        with pytest.raises(DataError, match=rf"train-00000\.bin holds {size - 2} bytes where .* says {size}"):
            attempt()


def test_changed_content_is_found_by_verify(prepare_texts: Prepare) -> None:
    data = prepare_texts()
    shard = data.directory / data.manifest.heldout.shards[0].file
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"heldout-00000\.bin has SHA-256"):
        reopen(data).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format_version 99, this version of sweep reads 1"),
        ({"vocab_size": "many"}, "damaged at vocab_size"),
        ({"surprise": 1}, "damaged at surprise"),
        ({"corpus_sha256": "0" * 64}, "has corpus_sha256 0000000000000000… where"),
    ],
)
def test_a_manifest_of_something_else_is_refused(
    prepare_texts: Prepare, change: dict[str, object], message: str
) -> None:
    data = prepare_texts()
    path = data.directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        reopen(data)


def test_a_manifest_that_is_none_is_refused(prepare_texts: Prepare) -> None:
    data = prepare_texts()
    path = data.directory / "manifest.json"
    for content in (path.read_bytes()[:100], b"[]", b"\xff\xfe\xfd"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"manifest\.json is not a manifest of prepared data: delete"):
            reopen(data)


def test_an_id_outside_the_vocabulary_is_refused(
    prepare_texts: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = ByteTokenizer.__init__

    def too_small(self: ByteTokenizer, *arguments: object) -> None:
        made(self, *arguments)
        self.vocab_size = 100

    def unchecked(self: ByteTokenizer, documents: Sequence[Document]) -> list[np.ndarray]:
        return [np.frombuffer(document.content, dtype=np.uint8).astype(np.int64) for document in documents]

    monkeypatch.setattr(ByteTokenizer, "__init__", too_small)
    monkeypatch.setattr(ByteTokenizer, "encode", unchecked)
    with pytest.raises(
        DataError, match=r"text-\d+: token id \d+ at position \d+ is outside the vocabulary 0\.\.99"
    ):
        prepare_texts()
    assert not list((tmp_path / "prepared").iterdir())


def test_a_tokenizer_that_loses_text_is_refused(
    prepare_texts: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ByteTokenizer.encode
    monkeypatch.setattr(
        ByteTokenizer, "encode", lambda self, documents: [ids[1:] for ids in whole(self, documents)]
    )
    with pytest.raises(DataError, match=r"text-\d+: its tokens stand for \d+ bytes, it has \d+"):
        prepare_texts()


def test_a_directory_that_cannot_be_written_is_refused(prepare_texts: Prepare, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"data_dir=.*file cannot be written \(Not a directory\)"):
        prepare_texts(data_dir=tmp_path / "file")


def test_a_directory_taken_up_before_it_was_locked_is_left_to_the_taker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another process may see a new directory's lock file before its maker has locked it."""
    takers: list[int] = []
    real = staging.fcntl.flock

    def overtaken(lock: int, operation: int) -> None:
        if not takers:
            (private,) = tmp_path.glob(".data.*")
            takers.append(os.open(private / staging.LOCK, os.O_RDWR))
            real(takers[0], operation)
        real(lock, operation)

    monkeypatch.setattr(staging.fcntl, "flock", overtaken)
    private, lock = staging._new(tmp_path / "data")
    assert not os.path.samestat(os.fstat(lock), os.fstat(takers[0]))
    assert os.path.samestat(os.fstat(lock), (private / staging.LOCK).stat())
    for descriptor in (lock, *takers):
        os.close(descriptor)
