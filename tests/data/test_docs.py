"""docs/data.md: every command on the page, run as it stands in a directory with the files it names."""

import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.data.tokenizers.bpe import train_bpe
from tests.data.corpora import generated

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page speaks of."""
    place = tmp_path_factory.mktemp("docs")
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghij", k=6)) for _ in range(200)]
    texts = [" ".join(chance.choices(words, k=3000)) for _ in range(60)]
    names = ["first.txt", *(f"more/{i}.txt" for i in range(59))]
    (place / "corpus" / "more").mkdir(parents=True)
    (place / "code").mkdir()
    for name, text in zip(names, texts, strict=True):
        (place / "corpus" / name).write_text(text)
        (place / "code" / Path(name).with_suffix(".py").name).write_text(f"TEXT = '{text}'\n")
    (place / "lines.txt").write_text("\n".join(texts))
    (place / "tales.txt").write_text("<|endoftext|>".join(texts))
    (place / "reviews").mkdir()
    pq.write_table(pa.table({"review": texts}), place / "reviews" / "train-00000-of-00001.parquet")
    train_bpe(generated(80), 300, place / "tokenizer.json")
    (place / "model").mkdir()
    shutil.copy(place / "tokenizer.json", place / "model")
    (place / "configs" / "experiment").mkdir(parents=True)
    (config,) = blocks("yaml")
    (place / "configs" / "experiment" / "mine.yaml").write_text(config)
    return place


def sweep(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs a command line of the page in this process: its exit code."""
    from sweep.cli.app import main

    words = shlex.split(command)
    assert words[0] == "sweep"
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [*words, f"data_dir={place / 'data'}"])
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_the_page_has_commands_for_everything() -> None:
    assert len(COMMANDS) > 12
    for choice in ("data=text", "data=python", "data=huggingface", "data=synthetic", "tokenizer=pretrained"):
        assert any(choice in command for command in COMMANDS)


@pytest.mark.ci
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_works(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep(command, place, monkeypatch) == 0, capfd.readouterr().err
    said = capfd.readouterr()
    if "data prepare" in command:
        assert "prepared in" in said.err
    elif "plan" in command:
        assert "runs, 0 cached" in said.err


def test_the_python_of_the_page_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = blocks("python")
    monkeypatch.chdir(place)
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, cwd=place
    ).stdout
    assert printed.startswith("Entropies(h0=")
    assert 2.5 < float(printed.split()[-1]) < 3.5


def test_the_error_of_the_page_is_the_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = place / "corpus" / "more" / "b.txt"
    other.write_text("größer", "utf-16")
    try:
        assert sweep("sweep plan data=text 'data.files=corpus/**/*.txt'", place, monkeypatch) == 2
    finally:
        other.unlink()
    shown = " ".join("".join(re.findall(r"^    error: .*\n    .*$", PAGE, re.MULTILINE)).split())
    assert capfd.readouterr().err.strip() == shown
