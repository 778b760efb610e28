"""Data sets on the hub, read by several processes: the same documents, in the same order, as by one."""

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from sweep.config import HuggingFaceData
from sweep.data.documents import Dropped
from sweep.data.sources import hub_readers, hub_rows
from sweep.data.sources.hub_readers import Progress, _plan
from sweep.data.sources.huggingface import huggingface_source
from sweep.data.sources.tables import BATCH_ROWS
from sweep.errors import DataError
from tests.data.fake_hub import COMMIT, Repositories, fake_hub

CONFIG = HuggingFaceData(source="huggingface", dataset="me/tales", revision=COMMIT, holdout_frac=0.2)
N_FILES = 7


def texts_of(file: int) -> list[str | None]:
    """Return the rows of a file: sizes differ, some have no text, and some equal one of another file."""
    texts: list[str | None] = [
        f"Tale {file}.{row}: " + "größer → " * (row % 9) for row in range(20 + 5 * file)
    ]
    return [*texts, None, " \n", "The end.", ""]


def lines(texts: list[str | None], column: str = "text") -> bytes:
    return "".join(json.dumps({column: text, "id": row}) + "\n" for row, text in enumerate(texts)).encode()


# --- the number of readers ---------------------------------------------------------------------------

MB = 10**6


@pytest.mark.parametrize(
    ("limit", "n_files", "n_read", "n_documents", "n_characters", "files", "n_readers"),
    [
        (None, 10, 0, 0, 0, range(1), 1),  # nothing known
        (None, 10, 2, 0, 0, range(2, 3), 1),  # only empty files so far
        (None, 10, 1, 100, MB, range(1, 2), 1),  # little text
        (None, 10, 1, 100, 20 * MB, range(1, 10), 2),
        (None, 1000, 1, 100, 20 * MB, range(1, 1000), 4),
        (None, 3, 1, 100, 500 * MB, range(1, 3), 2),  # a file each
        (None, 2, 1, 100, 500 * MB, range(1, 2), 1),
        (250, 1000, 1, 100, 500 * MB, range(1, 3), 2),  # the files that are needed
        (101, 1000, 1, 100, 500 * MB, range(1, 2), 1),
        (200, 1000, 1, 100, 500 * MB, range(1, 2), 1),
        (1000, 1000, 4, 400, 500 * MB, range(4, 10), 4),
    ],
)
def test_readers_are_started_for_the_files_that_are_needed(
    limit: int | None,
    n_files: int,
    n_read: int,
    n_documents: int,
    n_characters: int,
    files: range,
    n_readers: int,
) -> None:
    done = Progress(n_files=n_read, n_documents=n_documents, n_characters=n_characters)
    assert _plan(done, n_files, limit) == (files, n_readers)


def test_a_tokenizer_that_is_slower_than_one_reader_gets_no_more() -> None:
    done = Progress(n_files=1, n_documents=100, n_characters=500 * MB, reading_s=9.0, total_s=40.0)
    assert _plan(done, 10, None) == (range(1, 2), 1)
    done.reading_s = 11.0
    assert _plan(done, 10, None) == (range(1, 10), 4)


def test_reading_is_timed_apart_from_the_use_of_the_texts() -> None:
    def slow() -> Iterator[list[str | None]]:
        for _ in range(3):
            time.sleep(0.02)
            yield ["größer", None, " ", "x"]

    progress = Progress()
    for _ in progress.counted(slow()):
        time.sleep(0.05)
    assert (progress.n_documents, progress.n_characters) == (6, 21)
    assert 0.06 <= progress.reading_s <= progress.total_s - 0.15


# --- messages of a reader ----------------------------------------------------------------------------


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the hub by local files, streamed by the library."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for file in range(N_FILES):
        (tmp_path / f"{file}.jsonl.gz").write_bytes(gzip.compress(lines(texts_of(file))))
    (tmp_path / "5.jsonl.gz").write_bytes(gzip.compress(lines(["tale"], column="story")))
    paths = [str(tmp_path / f"{file}.jsonl.gz") for file in range(N_FILES)]

    def rows(library: Any, config: HuggingFaceData) -> Any:
        return library.load_dataset("json", data_files=paths, split="train", streaming=True)

    monkeypatch.setattr(hub_rows, "_rows", rows)


def test_a_reader_sends_the_rows_of_its_files_until_an_error(stream: None) -> None:
    messages: list[Any] = []
    with pytest.raises(DataError, match=r"^data\.dataset=me/tales cannot be read: "):
        messages.extend(hub_readers._messages(CONFIG, range(1, N_FILES, 2)))
    ends = [place for place, message in enumerate(messages) if message is None]
    assert [text for part in messages[: ends[0]] for text in part] == texts_of(1)
    assert [text for part in messages[ends[0] + 1 : ends[1]] for text in part] == texts_of(3)
    assert messages[ends[1] + 1 :] == []
    with hub_rows.opened(CONFIG) as rows, pytest.raises(ValueError, match="column names don't match"):
        list(hub_rows.texts(rows, CONFIG))


def test_files_in_turn_are_the_whole_stream(stream: None) -> None:
    with hub_rows.opened(CONFIG) as rows:
        whole = islice(chain.from_iterable(hub_rows.texts(rows, CONFIG)), 2 * BATCH_ROWS)
        parts = chain.from_iterable(hub_rows.file_texts(rows, file, CONFIG) for file in range(5))
        in_turn = list(chain.from_iterable(parts))
        assert in_turn == [text for file in range(5) for text in texts_of(file)]
        assert list(whole) == in_turn[: 2 * BATCH_ROWS]


READER = """
import json, os, sys
for file in range(*json.loads(sys.argv[1])["files"]):
    print(json.dumps([f"{file}.0", None]), json.dumps([f"{file}.1"]), "null", sep="\\n", flush=True)
    if file == 4:
        print(END, end="", flush=True)
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def read_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the files that this process reads, which hold the texts of READER."""
    files: list[int] = []

    def file_texts(rows: Any, file: int, config: HuggingFaceData) -> Iterator[list[str | None]]:
        files.append(file)
        yield from ([f"{file}.0", None], [f"{file}.1"])

    monkeypatch.setattr(hub_readers, "file_texts", file_texts)
    return files


def received(monkeypatch: pytest.MonkeyPatch, end: str) -> Iterator[str | None]:
    """Yield the texts from two readers; one ends once it has written `end` after file 4."""
    monkeypatch.setattr(
        hub_readers, "COMMAND", (sys.executable, "-S", "-c", READER.replace("END", repr(end)))
    )
    with hub_readers._started(CONFIG, None, range(1, N_FILES), 2) as found:
        yield from chain.from_iterable(found)


ALL_TEXTS = [text for file in range(1, N_FILES) for text in (f"{file}.0", None, f"{file}.1")]


def test_an_error_is_raised_when_its_file_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    def file_texts(rows: Any, file: int, config: HuggingFaceData) -> Iterator[list[str | None]]:
        raise DataError(f"row 3 of file {file} is bad")

    monkeypatch.setattr(hub_readers, "file_texts", file_texts)
    found = received(monkeypatch, "")
    assert list(islice(found, 15)) == ALL_TEXTS[:15]
    with pytest.raises(DataError, match=r"^row 3 of file 6 is bad$"):
        next(found)


@pytest.mark.parametrize("end", ["", '["half a mess', '["6.0", null]\n', '["6.0", null]\n["6.1"]\n'])
def test_files_of_a_reader_that_was_killed_are_read_here(
    monkeypatch: pytest.MonkeyPatch, read_here: list[int], end: str
) -> None:
    assert list(received(monkeypatch, end)) == ALL_TEXTS
    assert read_here == [6]


@pytest.mark.parametrize("n_started", [0, 1])
def test_files_of_readers_that_cannot_be_started_are_read_here(
    monkeypatch: pytest.MonkeyPatch, read_here: list[int], n_started: int
) -> None:
    start, started = subprocess.Popen, []

    def limited(*arguments: Any, **options: Any) -> Any:
        if len(started) == n_started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(arguments)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", limited)
    assert list(received(monkeypatch, "")) == ALL_TEXTS
    assert read_here == ([1, 2, 3, 4, 5, 6] if n_started == 0 else [2, 4, 6])


def test_a_reader_that_fails_at_its_start_is_silent_and_replaced(
    monkeypatch: pytest.MonkeyPatch, read_here: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    failing = "raise RuntimeError('cannot start new thread')"
    monkeypatch.setattr(hub_readers, "COMMAND", (sys.executable, "-S", "-c", failing))
    with hub_readers._started(CONFIG, None, range(1, N_FILES), 2) as found:
        assert list(chain.from_iterable(found)) == ALL_TEXTS
    assert read_here == [1, 2, 3, 4, 5, 6]
    assert capfd.readouterr() == ("", "")


# --- with a hub --------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys
from pathlib import Path
from sweep.config import HuggingFaceData, TokenizerConfig
from sweep.data import encoding, mixing
from sweep.data.shards import prepare
from sweep.data.sources import hub_readers
mixing.READ_BYTES, mixing.ENCODE_BYTES, encoding.CHECKPOINT_BYTES, encoding.REPORT_BYTES = 2000, 1000, 2000, 1
n_readers, n_documents, die_after = map(int, sys.argv[2:])
hub_readers.MAX_READERS, hub_readers.READER_TEXT, hub_readers.MIN_READING = n_readers, 1, 0
def report(stage, done, total):
    if done > die_after > 0: os.kill(os.getpid(), signal.SIGKILL)
config = HuggingFaceData(source="huggingface", dataset="me/tales", revision=sys.argv[1], holdout_frac=0.2,
                         n_documents=n_documents)
tokenizer = TokenizerConfig(name="byte", vocab_size=256)
started = []
start = hub_readers._start
hub_readers._start = lambda config, files, stack: started.append(files) or start(config, files, stack)
prepare(config, tokenizer, Path("data"), on_progress=report)
print(started)
"""


@pytest.mark.ci
def test_prepared_data_do_not_depend_on_the_readers_or_on_a_kill(tmp_path: Path) -> None:
    hub: Repositories = {
        "datasets/me/tales": {
            f"train-{file}.jsonl.gz": gzip.compress(lines(texts_of(file))) for file in range(N_FILES)
        }
    }

    def prepare(name: str, n_readers: int, die_after: int = 0) -> "subprocess.CompletedProcess[str]":
        (tmp_path / name).mkdir(exist_ok=True)
        arguments = [COMMIT, str(n_readers), str(n_documents), str(die_after)]
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
        environment.pop("HF_HUB_OFFLINE", None)  # other tests set it
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path / name,
            env={**environment, "NO_PROXY": "127.0.0.1"},
        )

    n_documents = 170  # in the first five files
    with fake_hub(hub) as endpoint:
        alone = prepare("alone", 1)
        assert prepare("several", 2, die_after=9000).returncode == -signal.SIGKILL
        several = prepare("several", 2)
    assert (alone.returncode, alone.stderr, several.returncode, several.stderr) == (0, "", 0, "")
    assert alone.stdout == "[]\n"
    assert several.stdout == "[range(1, 7, 2), range(2, 7, 2)]\n"
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "data/prepared").glob("*/*")}
        for name in ("alone", "several")
    ]
    assert files[0] == files[1]
    assert "manifest.json" in files[0]
    left = [path for path in (tmp_path / "home/datasets").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} <= {".lock"}


def test_documents_are_named_by_dataset_and_row(stream: None) -> None:
    found = huggingface_source(CONFIG).documents(dropped := Dropped())
    first_file = [next(found) for _ in range(21)]
    assert [document.name for document in first_file[-2:]] == ["me/tales, row 20", "me/tales, row 23"]
    next(found)
    assert dropped.n_blank == 3
