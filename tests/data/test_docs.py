"""The commands, the Python code and the error message in docs/data.md, run in a directory with its files."""

import random
import re
import runpy
import shlex
import shutil
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
    """Return a directory with the files that the page uses."""
    place = tmp_path_factory.mktemp("docs")
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghij", k=6)) for _ in range(200)]
    texts = [" ".join(chance.choices(words, k=12_000)) for _ in range(60)]
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
    sizes = [1.5**step for step in range(-3, 4)]
    cells = [((c / 120) ** 0.5 * size, c) for c in (1e15, 1e16, 1e17) for size in sizes]
    rows = [(n, c / (6 * n), c, 1.5 + 400 / n**0.35 + 600 / (c / (6 * n)) ** 0.3) for n, c in cells]
    lines = ["n_params,n_tokens,flops,val_loss", *(",".join(map(str, row)) for row in rows)]
    (place / "older.csv").write_text("\n".join(lines))
    (place / "configs" / "experiment").mkdir(parents=True)
    (config,) = blocks("yaml")
    (place / "configs" / "experiment" / "mine.yaml").write_text(config)
    return place


def sweep(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command line of the page in this process; return the exit code."""
    from sweep.cli.app import main

    words = shlex.split(command)
    assert words[0] == "sweep"
    monkeypatch.chdir(place)
    settings = [] if words[1] in ("import", "fit") else [f"data_dir={place / 'data'}"]
    monkeypatch.setattr(sys, "argv", [*words, *settings])
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_the_page_covers_every_source_and_tokenizer() -> None:
    assert len(COMMANDS) > 12
    for choice in (
        "data=text",
        "data=python",
        "data=huggingface",
        "data=synthetic",
        "data=mixture",
        "tokenizer=pretrained",
    ):
        assert any(choice in command for command in COMMANDS)


@pytest.mark.ci
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_works(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep(command, place, monkeypatch) == 0, capfd.readouterr().err
    output = "".join(capfd.readouterr())
    if "data prepare" in command:
        assert "prepared in" in output
    elif "plan" in command:
        assert "runs, 0 cached" in output


def test_the_python_code_on_the_page_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = blocks("python")
    monkeypatch.chdir(place)
    (place / "example.py").write_text(script)
    runpy.run_path(str(place / "example.py"))
    printed = capsys.readouterr().out
    assert printed.startswith("Entropies(h0=")
    assert 2.5 < float(printed.split()[-1]) < 3.5


def test_the_error_message_on_the_page_is_current(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = place / "corpus" / "more" / "b.txt"
    other.write_text("größer", "utf-16")
    try:
        assert (
            sweep("sweep plan experiment=smoke data=text 'data.files=corpus/**/*.txt'", place, monkeypatch)
            == 2
        )
    finally:
        other.unlink()
    shown = " ".join("".join(re.findall(r"^    error: .*\n    .*$", PAGE, re.MULTILINE)).split())
    assert capfd.readouterr().err.strip() == shown
