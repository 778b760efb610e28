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
from sweep.data import difficulty, shards, staging
from sweep.data import registry as sources
from sweep.data.documents import Document, is_held_out
from sweep.data.shards import PreparedData, find_manifest, open_prepared, prepare, prepare_documents
from sweep.data.sources.source import Source
from sweep.data.token_files import Tokens
from sweep.data.tokenizers.tokenizers import ByteTokenizer
from sweep.errors import DataError, InputError
from tests.data.corpora import BPE, BYTE, HOLDOUT_FRAC, Prepare, generated


def documents_of(tokens: Tokens, separator: int) -> list[list[int]]:
    """Split token ids at the separators."""
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
def test_bytes_are_unchanged(texts: list[Document], prepare_texts: Prepare, max_shard_tokens: int) -> None:
    data = prepare_texts(max_shard_tokens=max_shard_tokens)
    for tokens, held_out in ((data.train, False), (data.heldout.tokens, True)):
        expected = [text.content for text in texts if is_held_out(text, HOLDOUT_FRAC) == held_out]
        assert [bytes(ids) for ids in documents_of(tokens, 0)] == expected
    n_shards = len(data.manifest.train.shards)
    assert n_shards == -(-len(data.train) // max_shard_tokens)
    assert data.train.read(0, 10**6).max() < 256


def test_the_splits_share_no_document(prepare_texts: Prepare) -> None:
    data = prepare_texts(tokenizer=BPE)
    sides = [
        {tuple(ids) for ids in documents_of(tokens, data.manifest.separator)}
        for tokens in (data.train, data.heldout.tokens)
    ]
    assert all(sides)
    assert not sides[0] & sides[1]


@pytest.mark.parametrize("tokenizer", [BYTE, BPE])
def test_the_manifest_has_the_right_counts(
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


def test_data_is_prepared_once(
    prepare_texts: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = prepare_texts(tokenizer=BPE)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(shards, "build_tokenizer", None)  # fails if the text is tokenised again
    again = prepare_texts(tokenizer=BPE)
    assert again.manifest == first.manifest == reopen(first).manifest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


def test_prepare_reads_the_configured_source(
    texts: list[Document], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = Source(name="stdlib", documents=lambda _: iter([*texts, texts[0]]))
    monkeypatch.setitem(sources.SOURCES, "stdlib", lambda config: source)
    config = StdlibData(source="stdlib", holdout_frac=HOLDOUT_FRAC)
    seen: list[tuple[str, int, int]] = []
    data = prepare(config, BYTE, tmp_path, on_progress=lambda *report: seen.append(report))
    corpus = sources.scan(config)
    assert (data.manifest.corpus, data.manifest.corpus_sha256) == ("stdlib", corpus.sha256)
    assert find_manifest(tmp_path, corpus.sha256, data.manifest.tokenizer_sha256) == data.manifest
    assert seen[-1] == ("tokenise", corpus.n_bytes, corpus.n_bytes)


def test_the_tokenizer_is_trained_only_on_the_training_split(tmp_path: Path) -> None:
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


def test_concurrent_processes_prepare_the_same_data(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, found = spawn.Barrier(2), spawn.Queue()
    workers = [spawn.Process(target=_prepare_together, args=(tmp_path, barrier, found)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert len({found.get(timeout=60) for _ in workers}) == 1
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(list((tmp_path / "prepared").iterdir())) == 1  # nothing is left of the other one


def test_the_slower_process_uses_the_files_of_the_faster(prepare_texts: Prepare, tmp_path: Path) -> None:
    first: list[PreparedData] = []

    def finish_first(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if not first:
            first.append(prepare_texts())

    data = prepare_texts(on_progress=finish_first)
    assert data.directory == first[0].directory
    assert list((tmp_path / "prepared").iterdir()) == [data.directory]


def test_a_killed_process_leaves_no_directory_that_looks_finished(
    prepare_texts: Prepare, tmp_path: Path
) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_prepare_until_killed, args=(tmp_path,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    (rest,) = (tmp_path / "prepared").iterdir()
    assert rest.name.startswith(".")
    prepare_texts(holdout_frac=HOLDOUT_FRAC + 0.05)
    assert rest.is_dir()  # it belongs to another corpus
    data = prepare_texts()
    assert not rest.is_dir()  # its process is dead: resumed
    data.verify()
    assert {path.name for path in data.directory.iterdir()} == {
        "manifest.json",
        difficulty.FILE,
        *(array.file for array in data.manifest.files),
    }


def test_old_unlocked_directories_are_removed(prepare_texts: Prepare, tmp_path: Path) -> None:
    final = prepare_texts().directory
    young = final.rename(final.with_name(f".{final.name}.0123"))  # without a lock: its process may be alive
    assert prepare_texts().directory == final
    assert young.is_dir()
    shutil.rmtree(final)
    long_ago = time.time() - 2 * staging.ABANDONED_AFTER_S
    os.utime(young, (long_ago, long_ago))
    prepare_texts()
    assert list((tmp_path / "prepared").iterdir()) == [final]


def test_an_error_removes_the_directory(prepare_texts: Prepare, tmp_path: Path) -> None:
    def fail(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if n_bytes_done:
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        prepare_texts(on_progress=fail)
    assert not list((tmp_path / "prepared").iterdir())


# --- errors ------------------------------------------------------------------------------------------


def test_data_that_is_not_prepared_cannot_be_opened(tmp_path: Path) -> None:
    assert find_manifest(tmp_path, "a" * 64, "b" * 64) is None
    with pytest.raises(DataError, match=r"not found: the data is not prepared .* `sweep data prepare`"):
        open_prepared(tmp_path, "a" * 64, "b" * 64)


def test_a_truncated_shard_is_rejected(prepare_texts: Prepare) -> None:
    data = prepare_texts()
    shard = data.directory / data.manifest.train.shards[0].file
    size = shard.stat().st_size
    os.truncate(shard, size - 2)
    for attempt in (lambda: reopen(data), prepare_texts):
        with pytest.raises(DataError, match=rf"train-00000\.bin has {size - 2} bytes, .* says {size}"):
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
        ({"vocab_size": "many"}, "invalid at vocab_size"),
        ({"surprise": 1}, "invalid at surprise"),
        ({"corpus_sha256": "0" * 64}, "has corpus_sha256 0000000000000000… where"),
    ],
)
def test_an_invalid_manifest_is_rejected(
    prepare_texts: Prepare, change: dict[str, object], message: str
) -> None:
    data = prepare_texts()
    path = data.directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        reopen(data)


def test_a_file_that_is_not_a_manifest_is_rejected(prepare_texts: Prepare) -> None:
    data = prepare_texts()
    path = data.directory / "manifest.json"
    for content in (path.read_bytes()[:100], b"[]", b"\xff\xfe\xfd"):
        path.write_bytes(content)
        with pytest.raises(
            DataError, match=r"manifest\.json is not a valid manifest of prepared data: delete"
        ):
            reopen(data)


def test_an_id_outside_the_vocabulary_is_rejected(
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


def test_a_lossy_tokenizer_is_rejected(prepare_texts: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ByteTokenizer.encode
    monkeypatch.setattr(
        ByteTokenizer, "encode", lambda self, documents: [ids[1:] for ids in whole(self, documents)]
    )
    with pytest.raises(DataError, match=r"text-\d+: its tokens represent \d+ bytes, but it has \d+"):
        prepare_texts()


def test_an_unwritable_directory_is_rejected(prepare_texts: Prepare, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"data_dir=.*file cannot be written \(Not a directory\)"):
        prepare_texts(data_dir=tmp_path / "file")


def test_a_new_directory_locked_first_by_another_process_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another process may lock a new directory's lock file before its creator does."""
    others: list[int] = []
    real = staging.fcntl.flock

    def finish_first(lock: int, operation: int) -> None:
        if not others:
            (private,) = tmp_path.glob(".data.*")
            others.append(os.open(private / staging.LOCK, os.O_RDWR))
            real(others[0], operation)
        real(lock, operation)

    monkeypatch.setattr(staging.fcntl, "flock", finish_first)
    private, lock = staging._new(tmp_path / "data")
    assert not os.path.samestat(os.fstat(lock), os.fstat(others[0]))
    assert os.path.samestat(os.fstat(lock), (private / staging.LOCK).stat())
    for descriptor in (lock, *others):
        os.close(descriptor)


def test_a_new_directory_that_another_process_finished_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = staging.fcntl.flock
    finished: list[Path] = []

    def finish_first(lock: int, operation: int) -> None:
        if not finished:
            finished.extend(tmp_path.glob(".data.*"))
            (finished[0] / staging.LOCK).unlink()
            finished[0].rename(tmp_path / "data")
        real(lock, operation)

    monkeypatch.setattr(staging.fcntl, "flock", finish_first)
    private, lock = staging._new(tmp_path / "data")
    assert private not in finished
    assert os.path.samestat(os.fstat(lock), (private / staging.LOCK).stat())
    os.close(lock)
