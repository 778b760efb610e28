"""Exported tokenizers: transformers yields the ids used in training."""

import json
import os

import pytest

from sweep.config import TokenizerConfig
from sweep.data.documents import document
from sweep.data.tokenizers.bpe import BpeTokenizer, train_bpe
from sweep.data.tokenizers.stock_tokenizer import byte_alphabet, stock_tokenizer
from sweep.data.tokenizers.tokenizers import ByteTokenizer, tokenizer_file, tokenizer_sha256
from sweep.errors import DataError
from tests.train.corpus import generated_documents

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may send a request
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXTS = [
    "hello world",
    "  two  spaces\n\n\tand tabs \r\n",
    "Āā ünïcødé Ġ Ċ 漢字 🙂 e\u0301",
    "".join(map(chr, range(1, 128))),
    "a text that contains <|endoftext|> itself<|endoftext|>",
    "x" * 3000,
    "",
]


def loaded(directory):
    return transformers.AutoTokenizer.from_pretrained(directory)


def assert_same_ids(ours, theirs):
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ids == ours.encode([document("a", text.encode())])[0].tolist(), text
        assert theirs.decode(ids) == text
    assert theirs.eos_token_id == ours.separator
    assert len(theirs) == ours.vocab_size


@pytest.fixture
def byte_tokenizer():
    return ByteTokenizer(tokenizer_sha256(TokenizerConfig(name="byte", vocab_size=256), "0" * 64))


def test_the_byte_tokenizer_has_the_same_ids(tmp_path, byte_tokenizer):
    stock = stock_tokenizer(tmp_path / "nothing", "byte", byte_tokenizer.sha256, 64)
    stock.write(tmp_path)
    theirs = loaded(tmp_path)
    assert_same_ids(byte_tokenizer, theirs)
    assert (stock.separator, theirs.model_max_length) == (0, 64)


def test_the_byte_alphabet_equals_the_librarys():
    """The tokenizers library uses GPT-2's character for each byte, here for every byte of UTF-8 text."""
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert set(byte_alphabet()) == set(level.alphabet())
    text = "".join(map(chr, [*range(128), 0xFF, 0x7FF, 0x3FFFF]))
    shown = level.pre_tokenize_str(text)[0][0]
    assert shown == "".join(byte_alphabet()[byte] for byte in text.encode())


def test_a_trained_tokenizer_has_the_same_ids(tmp_path):
    sha256 = tokenizer_sha256(TokenizerConfig(name="bpe", vocab_size=400), "0" * 64)
    file = tokenizer_file(tmp_path, sha256)
    train_bpe(list(generated_documents()), 400, file)
    stock = stock_tokenizer(tmp_path, "bpe", sha256, 64)
    (tmp_path / "out").mkdir()
    stock.write(tmp_path / "out")
    assert_same_ids(BpeTokenizer(file, 400), loaded(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text()) == json.loads(file.read_text())


def test_a_missing_or_invalid_file_is_rejected(tmp_path):
    sha256 = "a" * 64
    with pytest.raises(DataError, match=r"tokenizer.json not found: give the data_dir that the run was"):
        stock_tokenizer(tmp_path, "bpe", sha256, 64)
    file = tokenizer_file(tmp_path, sha256)
    file.parent.mkdir(parents=True)
    for content in ("{", "[]", "{}", '{"added_tokens": 3}'):
        file.write_text(content)
        with pytest.raises(DataError, match="is not a valid tokenizer: delete it"):
            stock_tokenizer(tmp_path, "bpe", sha256, 64)
    file.write_text('{"added_tokens": [{"id": 5, "content": "<s>"}]}')
    with pytest.raises(DataError, match=r"<\|endoftext\|> not found in its added tokens"):
        stock_tokenizer(tmp_path, "bpe", sha256, 64)
