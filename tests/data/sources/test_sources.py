import hashlib
import json
import os
import sys
import time
from pathlib import Path

import pytest

from sweep.config import PythonData, StdlibData, TextData
from sweep.data import corpus as corpus_module
from sweep.data import registry as sources
from sweep.data.corpus import Corpus, CorpusHash, check_split, corpus_of
from sweep.data.documents import HOLDOUT_RULE, Document, document
from sweep.data.registry import documents, scan
from sweep.data.sources import python_files
from sweep.data.sources.python_files import stdlib_documents
from sweep.data.sources.source import Source
from sweep.errors import DataError

STDLIB = StdlibData(source="stdlib", holdout_frac=0.08)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a small standard library with every kind of file that is left out."""
    wanted = {"b.py": "b", "a.py": "a", "pkg/__init__.py": "", "pkg/copy_of_a.py": "a", "Z.py": "ü"}
    unwanted = (
        "test/x.py pkg/tests/x.py idlelib/idle_test/x.py pydoc_data/topics.py site-packages/numpy.py "
        "dist-packages/x.py __pycache__/x.py _sysconfigdata__linux.py config-3.11-x/python-config.py "
        "sitecustomize.py lib-dynload/x.so notes.txt"
    ).split()
    for name, text in {**wanted, **dict.fromkeys(unwanted, "no")}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def make_old(directory: Path) -> None:
    """Set the files' mtime to an hour ago. Their ctime cannot be set, so tests also lower the minimum age."""
    for path in directory.rglob("*"):
        os.utime(path, (time.time() - 3600,) * 2)


# --- Python sources ----------------------------------------------------------------------------------


def test_stdlib_yields_sorted_source_files(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(stdlib_documents(library))
    names = ["Z.py", "a.py", "b.py", "pkg/__init__.py", "pkg/copy_of_a.py"]
    assert [document.name for document in found] == names

    def reversed_names(names: list[str]) -> list[str]:
        names.sort(reverse=True)
        return names

    forwards = os.walk
    monkeypatch.setattr(
        os,
        "walk",
        lambda top: ((d, reversed_names(s), reversed_names(f)) for d, s, f in forwards(top)),
    )
    assert list(stdlib_documents(library)) == found
    assert list(stdlib_documents(library / "nowhere")) == []


def test_the_running_interpreters_library() -> None:
    found = list(documents(STDLIB))
    assert len(found) > 500
    assert len({document.content for document in found}) == len(found)
    parts = {part for document in found for part in document.name.split("/")}
    assert not parts & {"test", "tests", "idle_test", "pydoc_data", "site-packages", "__pycache__"}
    assert not any(
        sys.base_prefix.encode() in document.content for document in found if len(sys.base_prefix) > 8
    )
    corpus = scan(STDLIB)
    assert (corpus.name, corpus.n_documents) == ("stdlib", len(found))
    assert corpus.n_bytes == sum(len(document.content) for document in found) > 8e6
    assert corpus.n_bytes_held_out is not None
    assert 0.02 < corpus.n_bytes_held_out / corpus.n_bytes < 0.2


def test_invalid_utf8_is_rejected_with_its_offset(library: Path) -> None:
    (library / "b.py").write_bytes("grün".encode("latin-1"))
    with pytest.raises(DataError, match=r"b\.py: byte 0xfc at offset 2 is not UTF-8"):
        list(stdlib_documents(library))


def test_an_unreadable_file_is_rejected(library: Path) -> None:
    (library / "b.py").unlink()
    (library / "b.py").symlink_to(library / "gone")
    with pytest.raises(DataError, match=r"b\.py is a link to .*gone, which does not exist"):
        list(stdlib_documents(library))


def test_python_sources_below_roots(tmp_path: Path) -> None:
    for name, content in (("b/x.py", b"x = 1\n"), ("a/y.py", b"y = 2\n"), ("a/copy.py", b"x = 1\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a" / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "a" / "note.txt").write_bytes(b"no source")
    both = PythonData(source="python", roots=(str(tmp_path / "b"), str(tmp_path / "a")), holdout_frac=0.1)
    assert [found.name for found in documents(both)] == ["x.py", "y.py"]
    nowhere = PythonData(source="python", roots=(str(tmp_path / "c"),), holdout_frac=0.1)
    with pytest.raises(DataError, match=r"data\.roots=.*c is not a directory"):
        documents(nowhere)


# --- hash of a corpus --------------------------------------------------------------------------------


def test_the_corpus_hash_covers_texts_order_rule_and_fraction() -> None:
    one, other = document("one", b"1"), document("other", b"2")
    corpus = corpus_of("mine", [one, other], 0.25)
    hashes = [hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()]
    identity = {"documents": hashes, "holdout_frac": 0.25, "holdout_rule": HOLDOUT_RULE}
    plain = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    assert corpus.sha256 == hashlib.sha256(plain.encode()).hexdigest()
    assert (corpus.n_documents, corpus.n_bytes) == (2, 2)
    assert corpus_of("mine", [other, one], 0.25).sha256 != corpus.sha256
    assert corpus_of("mine", [one, other], 0.2).sha256 != corpus.sha256
    renamed = document("renamed", b"1")
    assert corpus_of("theirs", [renamed, other], 0.25).sha256 == corpus.sha256


def test_the_hash_so_far_depends_on_the_documents_added() -> None:
    texts = [document(str(i), str(i).encode()) for i in range(5)]
    longer, shorter = CorpusHash(0.1), CorpusHash(0.1)
    seen = []
    for text in texts:
        longer.add(text)
        seen.append(longer.so_far)
    for text in texts[:3]:
        shorter.add(text)
    assert shorter.so_far == seen[2]
    assert len(set(seen)) == 5


def test_a_corpus_with_an_empty_split_is_rejected() -> None:
    whole = Corpus(
        name="mine", sha256="0" * 64, n_documents=20, n_bytes=100, n_bytes_held_out=10, n_documents_held_out=2
    )
    check_split(whole, 0.1)
    for n_held_out, message in ((0, "hold out in 20 documents: raise"), (100, "train on in 20 .* lower")):
        corpus = corpus_module.Corpus(
            name="mine",
            sha256="0" * 64,
            n_documents=20,
            n_bytes=100,
            n_bytes_held_out=n_held_out,
            n_documents_held_out=2,
        )
        with pytest.raises(DataError, match=rf"holdout_frac=0\.1 leaves no text to {message}"):
            check_split(corpus, 0.1)


def test_a_source_without_text_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ([], [document("nothing", b"")]):
        source = Source(name="none", documents=lambda _, empty=empty: iter(empty))
        monkeypatch.setitem(sources.SOURCES, "stdlib", lambda config, source=source: source)
        with pytest.raises(DataError, match="the corpus none is empty: no text found"):
            scan(STDLIB)


def test_an_unknown_source_is_rejected_with_the_choices() -> None:
    unknown = StdlibData(source="wikipedia", holdout_frac=0.1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"unknown data\.source=wikipedia: choose from stdlib"):
        documents(unknown)


# --- cache of scans ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _cache_small_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.data.corpus.MIN_CACHED_BYTES", 0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[TextData, Path, list[int]]:
    """Return a text corpus of ten files, its data directory, and a list with one entry per read."""
    files = tmp_path / "text"
    files.mkdir()
    for i in range(10):
        (files / f"{i}.txt").write_text(f"text {i}")
    make_old(files)
    monkeypatch.setattr(corpus_module, "MIN_FILE_AGE_S", 0.0)  # their ctime is now
    reads: list[int] = []
    whole = corpus_of

    def counting(name: str, found: list[Document], holdout_frac: float) -> Corpus:
        reads.append(1)
        return whole(name, found, holdout_frac)

    monkeypatch.setattr(corpus_module, "corpus_of", counting)
    config = TextData(source="text", files=(f"{files}/*.txt",), delimiter=None, holdout_frac=0.3)
    return config, tmp_path / "data", reads


def test_a_scan_is_cached_until_a_file_changes(counted: tuple[TextData, Path, list[int]]) -> None:
    config, data_dir, reads = counted
    first = scan(config, data_dir)
    assert scan(config, data_dir) == first == scan(config)
    assert len(reads) == 2  # once for the cache, once without it
    target = Path(config.files[0]).parent / "3.txt"
    before = target.stat()
    target.write_text("texT 3")  # with the same size and mtime
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan(config, data_dir).sha256 != first.sha256
    (target.parent / "new.txt").write_text("new")
    assert scan(config, data_dir).n_documents == 11
    target.unlink()
    assert scan(config, data_dir).n_documents == 10


def test_a_recently_changed_file_is_not_cached(
    counted: tuple[TextData, Path, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data_dir, reads = counted
    monkeypatch.setattr(corpus_module, "MIN_FILE_AGE_S", 60.0)
    assert scan(config, data_dir) == scan(config, data_dir)
    assert len(reads) == 2


def test_a_damaged_cache_is_ignored(counted: tuple[TextData, Path, list[int]]) -> None:
    config, data_dir, reads = counted
    first = scan(config, data_dir)
    (cached,) = (data_dir / "scans").iterdir()
    state = json.loads(cached.read_bytes())["files"]
    for content in ("", "{", "[]", json.dumps({"files": state}), json.dumps({"files": state, "corpus": {}})):
        cached.write_text(content)
        assert scan(config, data_dir) == first
    assert len(reads) == 6
    cached.unlink()
    data_dir.joinpath("scans").rmdir()
    data_dir.joinpath("scans").write_text("in the way")
    assert scan(config, data_dir) == first


def test_the_cache_depends_on_settings_and_scan_version(
    counted: tuple[TextData, Path, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data_dir, _ = counted
    first = scan(config, data_dir)
    cut = TextData(source="text", files=config.files, delimiter=" ", holdout_frac=0.3)
    assert scan(cut, data_dir).n_documents == 11  # "text", and ten numbers
    assert scan(config, data_dir) == first
    monkeypatch.setattr(corpus_module, "SCAN_VERSION", 99)
    monkeypatch.setattr(corpus_module, "corpus_of", lambda *args: first)
    assert scan(cut, data_dir) == first


def test_the_standard_library_is_cached(
    library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(python_files.sysconfig, "get_path", lambda name: str(library))
    monkeypatch.setattr(corpus_module, "MIN_FILE_AGE_S", 0.0)
    half = StdlibData(source="stdlib", holdout_frac=0.5)
    data_dir = tmp_path / "elsewhere"
    first = scan(half, data_dir)
    monkeypatch.setattr(python_files, "read_file", None)  # fails if a file is read again
    assert scan(half, data_dir) == first
