"""Files in every format, recognised by content whatever their names say."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from sweep.config import HuggingFaceData, TextData
from sweep.data.registry import documents, scan
from sweep.data.sources.first_bytes import READABLE, kind_of
from sweep.errors import DataError
from sweep.formats import UNREADABLE

TALES = [f'Tale {i}, "größer" → ' + "once upon a time\n" * (i % 7) + "." for i in range(300)]
LINES = "".join(json.dumps({"n": i, "text": tale}, ensure_ascii=False) + "\n" for i, tale in enumerate(TALES))
CSV = "n,text\n" + "".join(f'{i},"' + tale.replace('"', '""') + '"\n' for i, tale in enumerate(TALES))


def zstd(content: bytes) -> bytes:
    """Compress in two frames, as parallel compressors write them."""
    codec, half = pa.Codec("zstd"), len(content) // 2
    return b"".join(codec.compress(part, asbytes=True) for part in (content[:half], content[half:]))


def gzipped(content: bytes) -> bytes:
    half = len(content) // 2
    return gzip.compress(content[:half]) + gzip.compress(content[half:])


def parquet(path: Path, texts: list[str] = TALES) -> None:
    pyarrow.parquet.write_table(pa.table({"n": range(len(texts)), "text": texts}), path, row_group_size=70)


def arrow_file(path: Path) -> None:
    table = pa.table({"n": range(300), "text": TALES})
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)


def arrow_stream(path: Path) -> None:
    table = pa.table({"text": TALES})
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)


def categories(path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"text": pa.array(TALES).dictionary_encode()}), path)


def table(path: Path, **changes: object) -> HuggingFaceData:
    return HuggingFaceData(source="huggingface", dataset=str(path), **changes)  # type: ignore[arg-type]


def read(config: HuggingFaceData | TextData) -> list[str]:
    return [found.content.decode() for found in documents(config)]


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0skip"  # frame before those of pzstd

WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_text(LINES, "utf-8"),
    "bom.jsonl": lambda path: path.write_text(LINES, "utf-8-sig"),
    "crlf.jsonl": lambda path: path.write_bytes(LINES.replace("\n", "\r\n").encode()),
    "a.jsonl.gz": lambda path: path.write_bytes(gzipped(LINES.encode())),
    "a.jsonl.zst": lambda path: path.write_bytes(zstd(LINES.encode("utf-8-sig"))),
    "skippable.jsonl.zst": lambda path: path.write_bytes(SKIPPABLE + zstd(LINES.encode())),
    "spaces.csv": lambda path: path.write_text(CSV.replace("n,text", "n, text"), "utf-8"),
    "misnamed.jsonl": lambda path: path.write_bytes(gzipped(LINES.encode())),
    "a.csv": lambda path: path.write_text(CSV, "utf-8"),
    "bom.csv": lambda path: path.write_text(CSV, "utf-8-sig"),
    "crlf.csv": lambda path: path.write_bytes(CSV.replace("\n", "\r\n").encode()),
    "a.csv.gz": lambda path: path.write_bytes(gzipped(CSV.encode())),
    "a.tsv": lambda path: path.write_text(CSV.replace("n,text", "n\ttext").replace(',"', '\t"'), "utf-8"),
    "a.parquet": parquet,
    "categories.parquet": categories,
    "parquet.jsonl": parquet,
    "file.arrow": arrow_file,
    "stream.arrow": arrow_stream,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("as_directory", [True, False])
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str, as_directory: bool) -> None:
    WRITERS[name](tmp_path / name)
    texts = read(table(tmp_path if as_directory else tmp_path / name))
    expected = [tale.replace(',"', '\t"') for tale in TALES] if name == "a.tsv" else TALES
    assert texts == expected


@pytest.mark.parametrize("compress", [gzipped, zstd])
def test_compressed_text_files_are_the_corpus_of_their_text(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    whole = "\n".join(f"tale {i} größer" for i in range(2000)).encode()
    (tmp_path / "a.txt").write_bytes(whole)
    (tmp_path / "a.txt.z").write_bytes(compress(b"\xef\xbb\xbf" + whole))
    plain, compressed = (
        scan(TextData(source="text", files=(str(tmp_path / name),), delimiter="\\n", holdout_frac=0.1))
        for name in ("a.txt", "a.txt.z")
    )
    assert plain == compressed
    assert plain.n_documents == 2000


@pytest.mark.parametrize("parts", [None, {"train": slice(0, 200), "test": slice(200, 300)}])
def test_a_directory_of_save_to_disk_without_its_cache_files(
    tmp_path: Path, parts: dict[str, slice] | None
) -> None:
    datasets = pytest.importorskip("datasets")
    if parts is None:
        datasets.Dataset.from_dict({"text": TALES}).save_to_disk(tmp_path / "saved", num_shards=3)
        arrow_stream(tmp_path / "saved" / "cache-0123456789abcdef.arrow")
        assert read(table(tmp_path / "saved")) == TALES
        return
    whole = {name: datasets.Dataset.from_dict({"text": TALES[part]}) for name, part in parts.items()}
    datasets.DatasetDict(whole).save_to_disk(tmp_path / "saved")
    assert read(table(tmp_path / "saved", split="train")) == TALES[:200]
    assert sorted(read(table(tmp_path / "saved"))) == sorted(TALES)


# --- errors ------------------------------------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def zipped() -> bytes:
    import io

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "text")
    return stream.getvalue()


TAR = io.BytesIO()
with tarfile.open(fileobj=TAR, mode="w") as archive:
    archive.add(__file__, "a.txt")

UNREADABLE_FILES = {
    "tar": (TAR.getvalue(), r"is a tar archive: unpack it with tar -xf$"),
    "tar.gz": (gzip.compress(TAR.getvalue()), r"is a tar archive: unpack it with tar -xf$"),
    "lfs": (POINTER, r"is a Git LFS pointer, not the file: run git lfs pull$"),
    "annex": (b"/annex/objects/MD5E-s5--x.txt\n", r"is a git-annex pointer, .*: run git annex get$"),
    "xz": (lzma.compress(b"text"), r"is compressed with xz: decompress it with xz -d$"),
    "bzip2": (bz2.compress(b"text"), r"is compressed with bzip2: decompress it with bzip2 -d$"),
    "zip": (zipped(), r"is a zip archive: unpack it with unzip$"),
    "UTF-16": (
        "grün\n".encode("utf-16"),
        r"is UTF-16 \(it begins with ff fe\), .* -t UTF-8$",
    ),
    "UTF-16LE": ("Hello world\n".encode("utf-16-le"), r"is UTF-16 .* iconv -f UTF-16LE -t UTF-8$"),
    "UTF-16BE": ("Hello world\n".encode("utf-16-be"), r"is UTF-16 .* iconv -f UTF-16BE -t UTF-8$"),
    "UTF-32LE": ("Hello world\n".encode("utf-32-le"), r"is UTF-32 .* iconv -f UTF-32LE -t UTF-8$"),
    "UTF-32BE": ("Hello world\n".encode("utf-32-be"), r"is UTF-32 .* iconv -f UTF-32BE -t UTF-8$"),
    "NumPy": (b"\x93NUMPY\x01\x00v\x00{}", r"is a NumPy array: export"),
    "pickle": (pickle.dumps({"text": ["a"]}), r"is a pickle, which may run code"),
    "weights": (b"\x10" + b"\0" * 7 + b'{"w":{}}', r"is a safetensors file"),
    "gzipped UTF-16": (gzip.compress("grün".encode("utf-16")), r"is UTF-16 .* iconv -f UTF-16 "),
    "gzip twice": (gzip.compress(gzip.compress(b"x" * 99)), r"holds a gzip file compressed with gzip: decom"),
    "half a gzip": (
        gzip.compress(bytes(range(256)) * 99)[:200],
        r"is damaged or incomplete \(gzip: ",
    ),
    "half a zstd": (zstd(LINES.encode())[:900], r"is damaged or incomplete \(zstd: .*\): download"),
}


@pytest.mark.parametrize("name", UNREADABLE_FILES)
@pytest.mark.parametrize("source", ["text", "huggingface"])
def test_a_file_that_cannot_be_read_names_the_tool_that_helps(tmp_path: Path, name: str, source: str) -> None:
    content, sentence = UNREADABLE_FILES[name]
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    config = TextData(source="text", files=(str(path),)) if source == "text" else table(tmp_path)
    with pytest.raises(DataError, match=rf"x\.jsonl {sentence}") as refusal:
        read(config)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["UTF-16", "UTF-16LE", "UTF-16BE"])
@pytest.mark.skipif(shutil.which("iconv") is None, reason="needs iconv")
def test_the_conversion_that_the_message_names_works(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(UNREADABLE_FILES[name][0])
    with pytest.raises(DataError) as refusal:
        kind_of(path)
    command = str(refusal.value).rpartition("convert it with ")[2].split()
    path.write_bytes(subprocess.run([*command, str(path)], check=True, capture_output=True).stdout)
    assert path.read_text("utf-8").lstrip("\ufeff") in ("grün\n", "Hello world\n")


@pytest.mark.parametrize("write", [parquet, arrow_file, arrow_stream])
def test_tables_given_as_text_name_the_source_that_reads_them(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    write(tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"in (Parquet|Arrow) format, .* data=huggingface data\.dataset=\S+"):
        read(TextData(source="text", files=(str(tmp_path / "x.txt"),)))
    assert read(table(tmp_path / "x.txt")) == TALES


def test_dangling_links_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").symlink_to("objects/gone")
    for config in (table(tmp_path), TextData(source="text", files=(str(tmp_path / "b*"),))):
        with pytest.raises(DataError, match=r"b\.parquet is a link to objects/gone, which does not"):
            read(config)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_the_page_of_a_server_is_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<!DOCTYPE html>\n<html><title>404</title></html>\n")
    with pytest.raises(DataError, match=r" is HTML or XML, perhaps the error page of a server: download it"):
        read(table(tmp_path / name))


@pytest.mark.parametrize("name", ["missing.jsonl", "data/missing.parquet", "link.jsonl"])
def test_the_name_of_a_file_is_no_name_on_the_hub(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.jsonl").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"not found: check the path|a link to nowhere, which does not exist"):
        read(table(Path(name)))


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"x\.txt is a pipe or device, which cannot be read twice: write it"):
        read(TextData(source="text", files=(str(tmp_path / "x.txt"),)))


def test_signatures_are_distinct() -> None:
    signatures = [signature for signature, _ in (*READABLE, *UNREADABLE)]
    for one in signatures:
        assert [other for other in signatures if other.startswith(one)] == [one]


# --- file and line -----------------------------------------------------------------------------------


def test_an_invalid_line_is_named_wherever_it_is(tmp_path: Path) -> None:
    for broken in (1, 6, 1900):
        lines = [json.dumps({"text": f"document {i} " + "word " * 120}) for i in range(2000)]
        lines[broken - 1] = '{"text": "broken'
        (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
        with pytest.raises(DataError, match=rf"a\.jsonl, line {broken} is not valid JSON"):
            scan(table(tmp_path))


def test_documents_are_named_by_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": null}\n{"no": 1}\n{"text": "a\\u0000b"}\n')
    config = table(tmp_path)
    assert [found.name.rpartition(", ")[2] for found in documents(config)] == ["line 1", "line 5"]
    assert scan(table(tmp_path, holdout_frac=0.5)).n_blank == 2
    (tmp_path / "a.jsonl").write_text('text,n\n"a\nb",1\n\n"",2\nc,3\n')
    (tmp_path / "a.jsonl").rename(tmp_path / "a.csv")
    assert [found.name.rpartition(", ")[2] for found in documents(config)] == ["line 2", "line 6"]
    assert read(config) == ["a\nb", "c"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text,n\na,1\nb\n", r"a\.csv, line 3 has 1 fields and the header 2: correct it"),
        (
            'text,n\na,1\n"b,2\nc,3\n',
            r"a\.csv, line 3 is not valid CSV \(unexpected end",
        ),
        ("txt,n\na,1\n", r"data\.column=text not found in .*a\.csv: choose from txt, n"),
    ],
)
def test_an_invalid_csv_file_names_the_line(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=sentence):
        read(table(tmp_path))
