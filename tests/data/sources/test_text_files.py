import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.config import TextData
from sweep.data import documents as documents_module
from sweep.data.documents import Dropped
from sweep.data.registry import documents, scan
from sweep.data.sources import text_files
from sweep.data.sources.text_files import file_documents, pieces, unescaped
from sweep.errors import DataError


def text(*files: object, delimiter: str | None = None) -> TextData:
    return TextData(source="text", files=tuple(map(str, files)), delimiter=delimiter, holdout_frac=0.1)


def test_paths_and_globs_keep_their_order_without_repeats(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "d.md", "deep/[odd].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"I am {name}")
    both = text(tmp_path / "d.md", tmp_path / "**/*.txt", tmp_path / "a.txt")
    names = [Path(found.name).relative_to(tmp_path).as_posix() for found in documents(both)]
    assert names == ["d.md", "a.txt", "b.txt", "deep/[odd].txt", "deep/er/c.txt"]
    (odd,) = documents(text(tmp_path / "deep/[odd].txt"))  # an existing path with glob characters
    assert odd.content == b"I am deep/[odd].txt"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("*.text", r"data\.files=.*\*\.text matches no file in /.*: check the path"),
        ("gone.txt", r"data\.files=.*gone\.txt matches no file"),
        ("loop.txt", r"loop\.txt cannot be read \(Too many .*\): it is a link to itself, remove it$"),
        ("", r"data\.files=.* is a directory: give its files, as .*/\*\*/\*$"),
    ],
)
def test_missing_files_are_rejected(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(DataError, match=sentence):
        list(documents(text(tmp_path / name)))


def test_an_empty_path_is_no_directory() -> None:
    with pytest.raises(DataError, match=r"data\.files has an empty path: give files"):
        documents(text(""))


def test_directories_with_characters_of_globs_are_read_as_written(tmp_path: Path) -> None:
    for name in ("[a]*b/x.txt", "axb/y.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    (found,) = documents(text(tmp_path / "[a]*b/*.txt"))
    assert found.content == b"[a]*b/x.txt"
    (found,) = documents(text(tmp_path / "a*b/*.txt"))
    assert found.content == b"axb/y.txt"


def test_a_delimiter_that_no_file_contains_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\rtwo\rthree")
    with pytest.raises(
        DataError, match=r"a single document, .*: data\.delimiter=\\n separates no further texts"
    ):
        scan(text(tmp_path / "a.txt", delimiter="\\n"))


@given(
    words=st.lists(st.text("ab\nß→", max_size=9), max_size=20),
    delimiter=st.sampled_from(["\n", "|", "<|end|>", "||"]),
    read_bytes=st.integers(1, 12),
)
@settings(deadline=None)
def test_pieces_equal_those_of_split_for_any_read_size(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], delimiter: str, read_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "file.txt"
    whole = delimiter.join(words).encode()
    path.write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "READ_BYTES", read_bytes)
        found = list(pieces(path, delimiter.encode()))
    expected = whole.split(delimiter.encode())
    assert [piece.content for piece in found] == (expected if expected[-1] else expected[:-1])
    for offset, line, content in found:
        assert whole[offset:].startswith(content)
        assert line == 1 + whole[:offset].count(b"\n")


def test_documents_are_split_at_a_delimiter_without_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "tales.txt"
    path.write_text("\ufeffone\ntale\n<|endoftext|>\n <|endoftext|>another", "utf-8")
    found = list(documents(text(path, delimiter="<|endoftext|>")))
    assert [document.content for document in found] == [b"one\ntale\n", b"another"]
    assert found[1].name == f"{path}, line 4"
    assert [document.content for document in documents(text(path))] == [path.read_bytes()[3:]]
    lines = [document.content for document in documents(text(path, delimiter="\\n"))]
    assert lines == [b"one", b"tale", b"<|endoftext|>", b" <|endoftext|>another"]


@pytest.mark.parametrize("delimiter", ["\\n", "\\n\\n", "\\n--\\n"])
@pytest.mark.parametrize("read_bytes", [1, 5, 2**23])
def test_windows_line_ends_separate_documents_too(
    tmp_path: Path, delimiter: str, read_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "READ_BYTES", read_bytes)
    whole = unescaped(delimiter).join(["one", "two", "three"]) + "\n"
    (tmp_path / "unix.txt").write_bytes(whole.encode())
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbf" + whole.replace("\n", "\r\n").encode())
    unix, windows = (
        [found.content.strip() for found in documents(text(tmp_path / name, delimiter=delimiter))]
        for name in ("unix.txt", "windows.txt")
    )
    assert unix == windows == [b"one", b"two", b"three"]
    lines = [
        list(pieces(tmp_path / f"{name}.txt", unescaped(delimiter).encode())) for name in ("unix", "windows")
    ]
    assert [piece.line for piece in lines[0]] == [piece.line for piece in lines[1]]


def test_blank_parts_and_copies_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\none\n  \nthree\none\n")
    corpus = scan(
        TextData(source="text", files=(str(tmp_path / "a.txt"),), delimiter="\\n", holdout_frac=0.5)
    )
    assert (corpus.n_documents, corpus.n_copies, corpus.n_blank) == (3, 2, 2)


def test_one_document_is_refused_with_advice_that_works(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("\n\n".join(f"tale {i}" for i in range(50)))
    with pytest.raises(
        DataError, match=r"text is a single document, and .* 'data\.delimiter=(.*)' for an"
    ) as found:
        scan(text(path))
    delimiter = re.search(r"'data\.delimiter=(.*)'", str(found.value)).group(1)  # type: ignore[union-attr]
    assert scan(text(path, delimiter=delimiter)).n_documents == 50
    path.write_text("copy\n" * 5000)
    with pytest.raises(DataError, match=r"single document after 4999 copies of it were dropped.* or use a"):
        scan(text(path, delimiter="\\n"))


def test_escapes_in_a_delimiter() -> None:
    assert unescaped(r"\n\n") == "\n\n"
    assert unescaped(r"a\tb\\n") == "a\tb\\n"


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [None, b"\n"])
def test_an_invalid_byte_is_rejected_with_file_and_offset(
    tmp_path: Path, delimiter: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "READ_BYTES", 7)
    path = tmp_path / "mixed.txt"
    for beginning in (b"", b"\xef\xbb\xbf"):
        content = beginning + "größe\nund ".encode() + "Größe".encode("latin-1") + b"\nmore"
        path.write_bytes(content)
        with pytest.raises(
            DataError, match=rf"mixed\.txt, line 2: byte 0xf6 at offset {content.index(0xF6)} is"
        ):
            list(file_documents(path, delimiter, Dropped()))


@pytest.mark.parametrize(
    ("encoding", "sentence"),
    [
        (
            "utf-16",
            r"b\.txt is UTF-16 \(it begins with ff fe\), not UTF-8: convert it with iconv",
        ),
        ("utf-32", r"b\.txt is UTF-32 \(it begins with ff fe 00 00\).* iconv -f UTF-32 -t UTF-8"),
    ],
)
def test_another_encoding_is_rejected(tmp_path: Path, encoding: str, sentence: str) -> None:
    (tmp_path / "a.txt").write_text("grün", "utf-8")
    (tmp_path / "b.txt").write_text("grün", encoding)
    with pytest.raises(DataError, match=sentence):
        list(documents(text(tmp_path / "*.txt")))


@pytest.mark.parametrize("delimiter", [None, pytest.param("\\n", marks=pytest.mark.ci)])
def test_a_line_of_two_gigabytes_is_rejected_before_it_fills_the_memory(
    tmp_path: Path, delimiter: str | None
) -> None:
    path = tmp_path / "endless.txt"
    with path.open("wb") as stream:
        stream.write(b"first\n")
        stream.truncate(2**31 + 6)  # sparse: takes no disk space
    with pytest.raises(DataError, match=r"endless\.txt.* is one document of more than 64 MiB: split it"):
        list(documents(text(path, delimiter=delimiter)))
    assert documents_module.MAX_DOCUMENT_BYTES == 2**26
