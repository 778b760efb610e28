"""Resuming data preparation: the same files as without a stop, and little repeated work."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sweep.config import TokenizerConfig
from sweep.data import encoding, mixing
from sweep.data.documents import Document
from sweep.data.shards import PreparedData, prepare_documents
from sweep.data.token_files import TokenWriter, open_array
from sweep.data.tokenizers.tokenizers import ByteTokenizer
from sweep.errors import DataError, DataInterrupted
from tests.data.corpora import BPE, BYTE, HOLDOUT_FRAC, Prepare


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use about ten chunks for the generated corpus, and a checkpoint every second one."""
    monkeypatch.setattr(mixing, "READ_BYTES", 2000)
    monkeypatch.setattr(mixing, "ENCODE_BYTES", 1000)
    monkeypatch.setattr(encoding, "CHECKPOINT_BYTES", 2000)


class Stop:
    """Progress callback that raises after a number of tokenised bytes."""

    def __init__(self, after: int, error: BaseException) -> None:
        self.after, self.error = after, error

    def __call__(self, stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if stage == "tokenise" and n_bytes_done > self.after:
            raise self.error


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the documents passed to the byte tokenizer, in order."""
    names: list[str] = []
    whole = ByteTokenizer.encode

    def recorded(self: ByteTokenizer, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        names.extend(document.name for document in documents)
        return whole(self, documents)

    monkeypatch.setattr(ByteTokenizer, "encode", recorded)
    return names


def files_of(data: PreparedData) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data.directory.iterdir()}


@pytest.mark.parametrize("tokenizer", [BYTE, BPE])
@pytest.mark.parametrize("max_shard_tokens", [10**6, 701])
def test_a_resumed_preparation_equals_an_uninterrupted_one(
    prepare_texts: Prepare, tmp_path: Path, tokenizer: TokenizerConfig, max_shard_tokens: int
) -> None:
    settings = {"tokenizer": tokenizer, "max_shard_tokens": max_shard_tokens}
    for after in (0, 3000, 5000, 6500):
        with pytest.raises(KeyboardInterrupt):
            prepare_texts(**settings, on_progress=Stop(after, KeyboardInterrupt()))
        (rest,) = (tmp_path / "prepared").iterdir()
        assert rest.name.startswith(".")
    resumed = prepare_texts(**settings)
    uninterrupted = prepare_texts(**settings, data_dir=tmp_path / "other")
    assert files_of(resumed) == files_of(uninterrupted)


def test_finished_work_is_not_repeated(
    prepare_texts: Prepare, encoded: list[str], texts: list[Document]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_texts(on_progress=Stop(6000, KeyboardInterrupt()))
    first = list(encoded)
    encoded.clear()
    prepare_texts()
    names = [text.name for text in texts]
    assert encoded == names[len(names) - len(encoded) :]
    assert (
        len(names) < len(first) + len(encoded) < len(names) * 1.4
    )  # at most one checkpoint interval is repeated


def test_a_killed_preparation_is_resumed(prepare_texts: Prepare, encoded: list[str], tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sweep.data import encoding, mixing\n"
        "mixing.READ_BYTES, mixing.ENCODE_BYTES, encoding.CHECKPOINT_BYTES = 2000, 1000, 2000\n"
        "from sweep.data.shards import prepare_documents\n"
        "from tests.data.corpora import BYTE, HOLDOUT_FRAC, generated\n"
        "def die(stage, done, n_bytes):\n"
        "    if done > 6000: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare_documents(generated(80), name='generated', holdout_frac=HOLDOUT_FRAC, tokenizer=BYTE,\n"
        "                  data_dir=Path(sys.argv[1]), on_progress=die)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    data = prepare_texts()
    assert 0 < len(encoded) < 60
    assert files_of(data) == files_of(prepare_texts(data_dir=tmp_path / "other"))
    data.verify()


def test_the_directory_of_a_live_process_is_kept(prepare_texts: Prepare, tmp_path: Path) -> None:
    found: list[PreparedData] = []

    def meanwhile(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if n_bytes_done > 6000 and not found:
            (mine,) = (tmp_path / "prepared").iterdir()
            found.append(prepare_texts())
            assert mine.is_dir()

    data = prepare_texts(on_progress=meanwhile)
    assert files_of(data) == files_of(found[0])
    assert list((tmp_path / "prepared").iterdir()) == [data.directory]


def test_one_of_two_unfinished_directories_is_kept(prepare_texts: Prepare, tmp_path: Path) -> None:
    def start_another(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if n_bytes_done > 4000:
            with pytest.raises(KeyboardInterrupt):
                prepare_texts(on_progress=Stop(2000, KeyboardInterrupt()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_texts(on_progress=start_another)
    assert len(list((tmp_path / "prepared").iterdir())) == 2
    data = prepare_texts()
    assert list((tmp_path / "prepared").iterdir()) == [data.directory]


# --- a full disk -------------------------------------------------------------------------------------


def _with_file_size_limit(n_bytes: int, script: str, data_dir: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script under a file size limit, which simulates a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return subprocess.run(
        [sys.executable, "-c", script, str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limit,
    )


def test_a_full_disk_keeps_finished_work(prepare_texts: Prepare, encoded: list[str], tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from sweep.data import encoding, mixing\n"
        "mixing.READ_BYTES, mixing.ENCODE_BYTES, encoding.CHECKPOINT_BYTES = 2000, 1000, 2000\n"
        "from sweep.data.shards import prepare_documents; from sweep.errors import DataInterrupted\n"
        "from tests.data.corpora import BYTE, HOLDOUT_FRAC, generated\n"
        "try:\n"
        "    prepare_documents(generated(80), name='generated', holdout_frac=HOLDOUT_FRAC, tokenizer=BYTE,\n"
        "                      data_dir=Path(sys.argv[1]))\n"
        "except DataInterrupted as error: print(error)\n"
    )
    stopped = _with_file_size_limit(12_000, script, tmp_path)
    assert stopped.returncode == 0, stopped.stderr
    assert "prepared cannot be written (File too large): finished work is kept" in stopped.stdout
    data = prepare_texts()
    assert 0 < len(encoded) < 60
    assert files_of(data) == files_of(prepare_texts(data_dir=tmp_path / "other"))


def test_the_message_for_a_full_disk_has_a_remedy(
    prepare_texts: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(self: TokenWriter) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TokenWriter, "sync", full)
    with pytest.raises(
        DataInterrupted, match=r"\(No space left on device\): .* kept, free disk space and repeat"
    ):
        prepare_texts()
    assert len(list((tmp_path / "prepared").iterdir())) == 1


# --- invalid checkpoints -----------------------------------------------------------------------------


@pytest.fixture
def stopped(prepare_texts: Prepare, tmp_path: Path) -> Path:
    """Return the directory of a preparation that was stopped half-way."""
    with pytest.raises(KeyboardInterrupt):
        prepare_texts(on_progress=Stop(6000, KeyboardInterrupt()))
    (directory,) = (tmp_path / "prepared").iterdir()
    return directory


@pytest.mark.parametrize("damage", ["checkpoint", "shard", "ends", "no checkpoint", "leftovers"])
def test_a_damaged_unfinished_directory_is_replaced(
    prepare_texts: Prepare, stopped: Path, damage: str, encoded: list[str], tmp_path: Path
) -> None:
    if damage == "checkpoint":
        (stopped / encoding.CHECKPOINT).write_text("{")
    elif damage == "shard":
        os.truncate(stopped / "train-00000.bin", 10)
    elif damage == "ends":
        os.truncate(stopped / encoding.ENDS, 3)
    elif damage == "no checkpoint":
        (stopped / encoding.CHECKPOINT).unlink()
    else:
        for name in ("manifest.json", "token-bytes.bin", "train-00007.bin", ".checkpoint.json"):
            (stopped / name).write_bytes(b"from another preparation")
    data = prepare_texts()
    assert (len(encoded) < 80) == (damage == "leftovers")
    assert files_of(data) == files_of(prepare_texts(data_dir=tmp_path / "other"))


def test_another_shard_size_starts_again(prepare_texts: Prepare, stopped: Path, encoded: list[str]) -> None:
    data = prepare_texts(max_shard_tokens=500)
    assert len(encoded) == 80
    assert {shard.n_items for shard in data.manifest.train.shards[:-1]} == {500}


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("change", ["other", "fewer"])
def test_documents_that_changed_since_the_checkpoint_are_rejected(
    texts: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A corpus identified by a recipe, and a source that later yields other documents."""

    class Changing(list[Document]):
        n_reads = 0

        def __iter__(self) -> Iterator[Document]:
            self.n_reads += 1
            if self.n_reads == 1 or change == "fewer":  # the first read, for the hash
                return iter(list(super().__iter__())[: None if self.n_reads == 1 else 10])
            return reversed(self)

    with pytest.raises(DataError, match="the corpus changed while it was prepared: repeat"):
        prepare_documents(
            Changing(texts), name="generated", holdout_frac=HOLDOUT_FRAC, tokenizer=BYTE, data_dir=tmp_path
        )
    assert not list((tmp_path / "prepared").iterdir())


def test_a_writer_resumes_after_the_given_token(tmp_path: Path) -> None:
    ids = np.arange(50)
    first = TokenWriter(tmp_path, "train", 300, 16)
    first.append(ids[:40])
    first.sync()
    first.append(ids[:9])  # never synced, or half of it
    second = TokenWriter(tmp_path, "train", 300, 16, 37)
    second.append(ids[37:])
    shards = second.finish()
    assert np.concatenate([open_array(tmp_path, shard) for shard in shards]).tolist() == ids.tolist()
    with pytest.raises(ValueError, match="has fewer than"):
        TokenWriter(tmp_path, "train", 300, 16, 51)
    assert TokenWriter(tmp_path, "train", 300, 16).finish() == ()
