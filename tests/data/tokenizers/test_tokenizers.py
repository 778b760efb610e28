import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from sweep.config import TokenizerConfig
from sweep.config.compose import compose_experiment
from sweep.data.documents import Document, document, is_held_out
from sweep.data.sources.python_files import stdlib_documents
from sweep.data.tokenizers.bpe import BpeTokenizer, train_bpe
from sweep.data.tokenizers.tokenizers import ByteTokenizer, build_tokenizer, tokenizer_file, tokenizer_sha256
from sweep.errors import DataError, InputError
from sweep.study.plan import dataset
from tests.data.corpora import BPE, BYTE, HOLDOUT_FRAC, generated

CORPUS = "c" * 64
STRANGE = document("strange", "naïve → 🦊\r\n\t<|endoftext|>\x00 \u2028 tail ".encode())


@pytest.fixture(scope="module")
def real_text() -> list[Document]:
    library = Path(sysconfig.get_path("stdlib"))
    return [*stdlib_documents(library / "json"), *stdlib_documents(library / "email")]


@pytest.fixture(scope="module")
def bpe(real_text: list[Document], tmp_path_factory: pytest.TempPathFactory) -> BpeTokenizer:
    file = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_bpe(real_text, 512, file)
    return BpeTokenizer(file, 512)


def test_the_byte_tokenizer_is_lossless(real_text: list[Document]) -> None:
    tokenizer = ByteTokenizer(CORPUS)
    for found, ids in zip(real_text, tokenizer.encode(real_text), strict=True):
        assert bytes(ids.tolist()) == found.content
        assert tokenizer.token_bytes[ids].sum() == len(found.content)
    assert tokenizer.token_bytes[tokenizer.separator] == 0


def test_byte_0_in_a_document_is_rejected() -> None:
    with pytest.raises(DataError, match=r"strange: offset \d+ holds a byte 0"):
        ByteTokenizer(CORPUS).encode([STRANGE])


def test_text_that_the_byte_tokenizer_cannot_encode_is_found_by_a_plan(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(
        b"".join(b"line %d \xc3\xbc%s\n" % (i, b"\0" * (i == 7)) for i in range(300))
    )
    overrides = ["experiment=smoke", "data=text", f"data.files={tmp_path}/corpus.txt", "data.delimiter=\\n"]
    overrides += [f"data_dir={tmp_path}", "tokenizer=byte"]
    with pytest.raises(DataError, match=r"corpus.txt, line 8: offset 9 holds a byte 0"):
        dataset(compose_experiment(overrides))
    (tmp_path / "corpus.txt").write_text("".join(f"line {i} ü\n" for i in range(300)))
    with pytest.raises(DataError, match=r"byte 195 is outside the vocabulary of tokenizer\.vocab_size=128"):
        dataset(compose_experiment([*overrides, "tokenizer.vocab_size=128"]))


def test_a_byte_tokenizer_with_a_smaller_vocabulary(tmp_path: Path) -> None:
    config = TokenizerConfig(name="byte", vocab_size=65)
    tokenizer = build_tokenizer(config, CORPUS, [], tmp_path)
    (ids,) = tokenizer.encode([document("a", b"\x01 @\n")])
    assert ids.tolist() == [1, 32, 64, 10]
    assert tokenizer.token_bytes.shape == (65,)
    with pytest.raises(DataError, match=r"a\.txt: byte 65 is outside .*\.vocab_size=65: raise it to 66"):
        tokenizer.encode([document("a.txt", b"@A")])
    with pytest.raises(InputError, match="vocab_size=257"):
        TokenizerConfig(name="byte", vocab_size=257)


def test_bpe_is_lossless(bpe: BpeTokenizer, real_text: list[Document]) -> None:
    for found, ids in zip([*real_text, STRANGE], bpe.encode([*real_text, STRANGE]), strict=True):
        assert bpe._fast.decode(ids.tolist(), skip_special_tokens=False).encode() == found.content
        assert bpe.token_bytes[ids].sum() == len(found.content)
        assert bpe.separator not in ids
    n_bytes, n_tokens = sum(len(one.content) for one in real_text), sum(map(len, bpe.encode(real_text)))
    assert 1.8 < n_bytes / n_tokens < 2.6  # 2.04 on the whole library


def test_bpe_has_the_number_of_bytes_of_each_token(bpe: BpeTokenizer) -> None:
    assert bpe.vocab_size == 512
    assert bpe.token_bytes[bpe.separator] == 0
    assert np.count_nonzero(bpe.token_bytes) == 511
    texts = {token: bpe._fast.decode([token], skip_special_tokens=False) for token in range(512)}
    whole = {token: text for token, text in texts.items() if "\ufffd" not in text and token != bpe.separator}
    assert len(whole) > 300
    assert all(bpe.token_bytes[token] == len(text.encode()) for token, text in whole.items())


def test_bpe_training_is_deterministic(tmp_path: Path) -> None:
    texts = generated(40)
    train_bpe(texts, 300, tmp_path / "one.json")
    train_bpe(texts[::-1], 300, tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"one.json", "two.json"}


def test_a_trained_tokenizer_is_read_back_from_its_file(tmp_path: Path) -> None:
    training = [text for text in generated(40) if not is_held_out(text, HOLDOUT_FRAC)]
    first = build_tokenizer(BPE, CORPUS, training, tmp_path)
    again = build_tokenizer(BPE, CORPUS, [], tmp_path)  # without training text: read from the file
    assert again.sha256 == first.sha256
    assert again.encode(training)[0].tolist() == first.encode(training)[0].tolist()


def test_a_damaged_file_is_rejected(tmp_path: Path) -> None:
    file = tokenizer_file(tmp_path, tokenizer_sha256(BPE, CORPUS))
    train_bpe(generated(40), 290, file)
    with pytest.raises(DataError, match=r"tokenizer\.json has 290 tokens, expected 300"):
        build_tokenizer(BPE, CORPUS, [], tmp_path)
    file.write_text(json.dumps({"half": "a tok"})[:10])
    with pytest.raises(DataError, match=r"tokenizer\.json is not a valid tokenizer"):
        build_tokenizer(BPE, CORPUS, [], tmp_path)


def test_a_vocabulary_too_large_for_the_text_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"vocab_size=5000 is too large for the training text: choose at most \d"
    ):
        train_bpe(generated(5), 5000, tmp_path / "tokenizer.json")
    assert not list(tmp_path.iterdir())


def test_the_identity_includes_the_corpus_only_for_trained_tokenizers() -> None:
    assert tokenizer_sha256(BYTE, CORPUS) == tokenizer_sha256(BYTE, "d" * 64)
    names = {
        tokenizer_sha256(BYTE, CORPUS),
        tokenizer_sha256(BPE, CORPUS),
        tokenizer_sha256(BPE, "d" * 64),
        tokenizer_sha256(TokenizerConfig(name="bpe", vocab_size=301), CORPUS),
    }
    assert len(names) == 4


def test_the_identity_needs_no_library_and_training_names_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert len(tokenizer_sha256(BPE, CORPUS)) == 64
    with pytest.raises(InputError, match=r"pip install 'sweep\[train\]'"):
        build_tokenizer(BPE, CORPUS, [], tmp_path)


def test_an_unknown_tokenizer_is_rejected_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"unknown tokenizer\.name=word: choose from byte, bpe, pretrained"):
        tokenizer_sha256(TokenizerConfig(name="word", vocab_size=300), CORPUS)  # type: ignore[arg-type]


def test_a_forked_process_can_encode_without_a_warning(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from sweep.data.documents import document\n"
        "from sweep.data.tokenizers.bpe import *\n"
        "texts = [document(str(i), b'some text, some more text ' * 9) for i in range(50)]\n"
        "train_bpe(texts, 260, Path(sys.argv[1])); BpeTokenizer(Path(sys.argv[1]), 260).encode(texts)\n"
        "child = os.fork()\n"
        "if not child: BpeTokenizer(Path(sys.argv[1]), 260).encode(texts); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "tokenizer.json")]
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
