import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.config import HuggingFaceData
from sweep.data.registry import documents, scan
from sweep.data.sources import hub_rows
from sweep.data.sources.huggingface import huggingface_source
from sweep.errors import DataError, InputError
from tests.data.fake_hub import COMMIT, Repositories, fake_hub

LOCAL = HuggingFaceData(
    source="huggingface",
    dataset="-",
    revision=None,
    subset=None,
    split=None,
    column="text",
    streaming=True,
    n_documents=None,
    holdout_frac=0.2,
)
TALES = [f"Tale {i}: " + "once upon a time, größer → " * (i % 7) for i in range(200)]


@pytest.fixture(autouse=True)
def private_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "hf")


def table(texts: list[Any]) -> pa.Table:
    return pa.table({"text": texts, "score": list(range(len(texts)))})


def lines(texts: list[Any]) -> str:
    return "".join(
        json.dumps({"text": text, "score": i}, ensure_ascii=False) + "\n" for i, text in enumerate(texts)
    )


def read(config: HuggingFaceData) -> list[str]:
    return [found.content.decode() for found in documents(config)]


# --- local files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_directory_yields_the_texts_of_its_files_in_order(
    tmp_path: Path, kind: str, streaming: bool
) -> None:
    for number, part in enumerate((TALES[:90], TALES[90:])):
        if kind == "parquet":
            pq.write_table(table(part), tmp_path / f"train-{number}.parquet", row_group_size=40)
        else:
            (tmp_path / f"train-{number}.jsonl").write_text(lines(part), "utf-8")
    (tmp_path / "README.md").write_text("no data")
    config = replace(LOCAL, dataset=str(tmp_path), streaming=streaming)
    assert read(config) == TALES
    first = next(documents(config))
    assert first.name == f"{tmp_path / f'train-0.{kind}'}, {'row' if kind == 'parquet' else 'line'} 1"
    assert read(replace(config, n_documents=120)) == TALES[:120]
    one = replace(config, dataset=str(tmp_path / f"train-1.{kind}"))
    assert read(one) == TALES[90:]


def test_a_corpus_does_not_depend_on_the_file_format(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    pq.write_table(table(TALES), tmp_path / "a" / "all.parquet")
    (tmp_path / "b" / "1.jsonl").write_text(lines(TALES[:50]), "utf-8")
    (tmp_path / "b" / "2.ndjson").write_text(lines([*TALES[50:], TALES[0], None, "", "  "]), "utf-8")
    corpora = [scan(replace(LOCAL, dataset=str(tmp_path / name))) for name in "ab"]
    assert corpora[0].sha256 == corpora[1].sha256
    assert [corpus.name for corpus in corpora] == ["a", "b"]
    assert corpora[0].n_documents == 200


def test_a_split_is_a_directory_or_a_prefix_of_file_names(tmp_path: Path) -> None:
    for name, text in (
        ("train/0.jsonl", "a"),
        ("train-1.jsonl", "b"),
        ("training.jsonl", "c"),
        ("test.jsonl", "d"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(lines([text]))
    config = replace(LOCAL, dataset=str(tmp_path))
    assert read(replace(config, split="train")) == ["a", "b"]
    assert read(replace(config, split="test")) == ["d"]
    assert sorted(read(config)) == ["a", "b", "c", "d"]
    with pytest.raises(
        DataError, match=r"no file of split dev found: .* \.arrow files, named dev/… or dev-….parquet"
    ):
        read(replace(config, split="dev"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            lines(["fine"]).encode() + "größer\n".encode("latin-1"),
            r"x\.jsonl, line 2: byte 0xf6 at offset 31 is",
        ),
        (lines(["fine"]).encode("utf-16"), r"x\.jsonl is UTF-16 \(it begins with ff fe\)"),
        (b'{"text": "half', r"x\.jsonl, line 1 is not valid JSON \(Unterminated string.*: correct it"),
        (b'[\n{"text": "a"}\n]', r"x\.jsonl, line 1 is not valid JSON .* jq -c '\.\[\]'"),
        (b'{"text": "a"}\n["b"]\n', r"x\.jsonl, line 2 is JSON but not an object"),
        (b'\n{"text": "a\\ud83db"}\n', r"x\.jsonl, line 2: character 2 is \\ud83d, half of a surrogate pair"),
        (b'{"txt": "other"}\n', r"data\.column=text not found in .*x\.jsonl: choose from txt"),
        (b'{"text": 7}\n', r"data\.column=text of .*x\.jsonl, line 1 has type int, not text"),
    ],
)
def test_invalid_files_are_rejected(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=sentence) as refusal:
        read(replace(LOCAL, dataset=str(tmp_path)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("text,text", r"x\.csv has 2 columns named text: rename all but one"),
        ("id;text", r"x\.csv separates columns with ';': save it separated by commas, or by tabs as \.tsv"),
    ],
)
def test_an_ambiguous_header_is_rejected(tmp_path: Path, header: str, sentence: str) -> None:
    (tmp_path / "x.csv").write_text(f"{header}\na,b\n")
    with pytest.raises(DataError, match=sentence):
        read(replace(LOCAL, dataset=str(tmp_path)))


def test_a_url_is_neither_a_path_nor_a_name_on_the_hub() -> None:
    with pytest.raises(InputError, match=r"data\.dataset=https://x\.org/a/b is a URL: give OWNER/NAME"):
        read(replace(LOCAL, dataset="https://x.org/a/b"))


def test_a_too_long_line_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.data.sources.text_files.MAX_DOCUMENT_BYTES", 2**10)
    (tmp_path / "x.jsonl").write_text('{"text": "' + "x" * 2**11)
    with pytest.raises(DataError, match=r"x\.jsonl, from line 1 on, is one document of more than 64 MiB"):
        read(replace(LOCAL, dataset=str(tmp_path)))


BINARY = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary()))


@pytest.mark.parametrize("kind", BINARY, ids=str)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_binary_columns_are_read_as_utf8(tmp_path: Path, kind: Any, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"

    def write(contents: list[bytes | None]) -> None:
        values = pa.table({"text": pa.array(contents, pa.binary()).cast(kind)})
        if suffix == "parquet":
            pq.write_table(values, path)
        else:
            with pa.ipc.new_file(path, values.schema) as file:
                file.write_table(values)

    write([b"one", None, "größer →".encode(), b" "])
    found = documents(replace(LOCAL, dataset=str(path)))
    assert [(one.name, one.content.decode()) for one in found] == [
        (f"{path}, row 1", "one"),
        (f"{path}, row 3", "größer →"),
    ]
    write([b"one", b"na\xefve"])
    with pytest.raises(DataError, match=r"x\.\w+, row 2: byte 0xef at offset 2 of data\.column=text is not"):
        list(documents(replace(LOCAL, dataset=str(path))))


def test_an_invalid_parquet_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 or so")
    with pytest.raises(DataError, match=r"x\.parquet is damaged or incomplete \(parquet, row 1: "):
        read(replace(LOCAL, dataset=str(tmp_path)))


def test_missing_paths_and_directories_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.dataset=.*/gone not found: check the path"):
        huggingface_source(replace(LOCAL, dataset=str(tmp_path / "gone")))
    with pytest.raises(
        DataError,
        match=r"data\.dataset=.*: no file found: .* \.parquet, .* files, or read .* with data=text$",
    ):
        huggingface_source(replace(LOCAL, dataset=str(tmp_path)))
    (tmp_path / "x.jsonl").write_text(lines(["x"]))
    with pytest.raises(InputError, match=r"data\.revision has no effect on the local path .* set it to null"):
        huggingface_source(replace(LOCAL, dataset=str(tmp_path), revision=COMMIT))


def test_local_files_need_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jsonl").write_text(lines(["x"]))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert read(replace(LOCAL, dataset=str(tmp_path))) == ["x"]
    with pytest.raises(
        InputError, match=r"data=huggingface needs the datasets library: pip install 'sweep\[train\]'"
    ):
        read(replace(LOCAL, dataset="me/tales", revision=COMMIT))


# --- the hub -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:39], COMMIT.upper()])
def test_a_name_on_the_hub_needs_a_commit(revision: str | None) -> None:
    given = " is missing" if revision is None else f"={revision} is not a commit"
    with pytest.raises(InputError, match=rf"data\.revision{given}: give the 40 hex digits of a commit"):
        huggingface_source(replace(LOCAL, dataset="me/tales", revision=revision))


def test_a_corpus_on_the_hub_is_identified_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    config = replace(LOCAL, dataset="me/tales", revision=COMMIT)
    corpus = scan(config)
    assert (corpus.name, corpus.n_documents, corpus.n_bytes) == ("me/tales", None, None)
    others = [
        replace(config, revision="b" * 40),
        replace(config, split="validation"),
        replace(config, column="story"),
        replace(config, subset="easy"),
        replace(config, n_documents=7),
        replace(config, holdout_frac=0.1),
    ]
    assert len({corpus.sha256, *(scan(other).sha256 for other in others)}) == 7
    for same in (replace(config, split="train"), replace(config, streaming=False)):
        assert scan(same).sha256 == corpus.sha256


SCRIPT = """
import json, sys, time
from sweep.config import HuggingFaceData
from sweep.data.sources import hub
from sweep.data.registry import documents
hub.TIMEOUT_S = float(sys.argv[1])
answers = []
for values in json.load(sys.stdin):
    begun = time.perf_counter()
    try:
        answer = [found.content.decode() for found in documents(HuggingFaceData(**values))]
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    answers.append([answer, time.perf_counter() - begun])
print(json.dumps({"answers": answers, "torch": "torch" in sys.modules}))
"""


def ask(endpoint: str, home: Path, configs: list[HuggingFaceData], timeout_s: float = 10) -> dict[str, Any]:
    """Read each config in a new process with `endpoint` as the hub; return each result with its seconds."""
    from sweep.config import to_dict

    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(timeout_s)],
        input=json.dumps([to_dict(config) for config in configs]),
        capture_output=True,
        text=True,
        timeout=120,
        env={key: value for key, value in environment.items() if not key.startswith("HF_HUB")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def parquet(texts: list[str]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table(texts), stream)
    return stream.getvalue()


def binary_parquet(contents: list[bytes]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": contents}), stream)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("0.txt"))
    return stream.getvalue()


@pytest.mark.ci
def test_data_sets_on_the_hub(tmp_path: Path) -> None:
    hub: Repositories = {
        "datasets/me/tales": {
            "data/train-00000-of-00002.parquet": parquet(TALES[:80]),
            "data/train-00001-of-00002.parquet": parquet(TALES[80:]),
            "data/test-00000-of-00001.parquet": parquet(["held back"]),
            "README.md": b"---\nlicense: mit\n---\nTales.",
        },
        "datasets/me/lines": {"train.jsonl": lines(TALES[:9]).encode()},
        "datasets/me/bytes": {"train.parquet": binary_parquet([text.encode() for text in TALES])},
        "datasets/me/latin": {"train.parquet": binary_parquet([b"one", b"na\xefve"])},
        "datasets/me/script": {"script.py": b"raise SystemExit(3)", "train.jsonl": lines(["x"]).encode()},
        "datasets/me/archive": {"train.tar": archive()},
    }
    tales = replace(LOCAL, dataset="me/tales", revision=COMMIT)
    cases: list[tuple[HuggingFaceData, Any]] = [
        (tales, TALES),
        (replace(tales, streaming=False), TALES),
        (replace(tales, split="test"), ["held back"]),
        (replace(tales, n_documents=85), TALES[:85]),
        (replace(tales, dataset="me/lines"), TALES[:9]),
        (replace(tales, dataset="me/bytes"), TALES),
        (
            replace(tales, dataset="me/latin"),
            "me/latin, file 1 of 1, row 2: byte 0xef at offset 2 of data.column=text is not UTF-8 text",
        ),
        (
            replace(tales, split="dev"),
            "cannot be opened: Bad split: dev. Available splits: ['train', 'test']",
        ),
        (replace(tales, column="story"), "data.column=story not found in me/tales: choose from text, score"),
        (replace(tales, column="score"), "data.column=score of me/tales has type int64, not text"),
        (
            replace(tales, revision="b" * 40),
            f"data.dataset=me/tales has no commit {'b' * 40}: choose one from http",
        ),
        (replace(tales, dataset="me/gone"), "data.dataset=me/gone not found on the hub, or private"),
        (replace(tales, dataset="me/script"), "cannot be opened: Dataset scripts are no longer supported"),
        (
            replace(tales, dataset="me/archive"),
            "me/archive has the unsupported format webdataset: choose a data set in arrow, csv, json",
        ),
    ]
    with fake_hub(hub) as endpoint:
        found = ask(endpoint, tmp_path, [config for config, _ in cases])
    for (_, expected), (answer, _) in zip(cases, found["answers"], strict=True):
        if isinstance(expected, str):
            assert expected in answer
            assert "\n" not in answer
        else:
            assert answer == expected
    assert not found["torch"]


@pytest.mark.ci
def test_a_missing_network_is_reported_quickly_with_a_remedy(tmp_path: Path) -> None:
    import socket

    tales = replace(LOCAL, dataset="me/tales", revision=COMMIT)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and never answers
        for endpoint in ("http://127.0.0.1:9", f"http://127.0.0.1:{silent.getsockname()[1]}"):
            ((answer, seconds),) = ask(endpoint, tmp_path, [tales], timeout_s=1)["answers"]
            assert answer.startswith(
                f"DataError: data.dataset=me/tales is not available, {endpoint} does not answer ("
            )
            assert "copy data_dir here, or copy its .parquet or .jsonl files here" in answer
            assert seconds < 30  # the libraries' retries would take minutes


def test_formats_that_unpickle_are_not_supported() -> None:
    assert not hub_rows.HUB_FORMATS & {"pandas", "webdataset", "imagefolder", "lance"}
