"""Exported tokenizers: transformers gives the ids that we trained on."""

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

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may ask a server
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXTS = [
    "hello world",
    "  two  spaces\n\n\tand tabs \r\n",
    "Āā ünïcødé Ġ Ċ 漢字 🙂 e\u0301",
    "".join(map(chr, range(1, 128))),
    "a text that says <|endoftext|> itself<|endoftext|>",
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


def test_bytes_keep_their_ids(tmp_path, byte_tokenizer):
    stock = stock_tokenizer(tmp_path / "nothing", "byte", byte_tokenizer.sha256, 64)
    stock.write(tmp_path)
    theirs = loaded(tmp_path)
    assert_same_ids(byte_tokenizer, theirs)
    assert (stock.separator, theirs.model_max_length) == (0, 64)


def test_the_byte_alphabet_is_the_librarys():
    """tokenizers names each byte as GPT-2 does: encode every byte that text can hold and look."""
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert set(byte_alphabet()) == set(level.alphabet())
    text = "".join(map(chr, [*range(128), 0xFF, 0x7FF, 0x3FFFF]))
    shown = level.pre_tokenize_str(text)[0][0]
    assert shown == "".join(byte_alphabet()[byte] for byte in text.encode())


def test_a_trained_tokenizer_keeps_its_ids(tmp_path):
    sha256 = tokenizer_sha256(TokenizerConfig(name="bpe", vocab_size=400), "0" * 64)
    file = tokenizer_file(tmp_path, sha256)
    train_bpe(list(generated_documents()), 400, file)
    stock = stock_tokenizer(tmp_path, "bpe", sha256, 64)
    (tmp_path / "out").mkdir()
    stock.write(tmp_path / "out")
    assert_same_ids(BpeTokenizer(file, 400), loaded(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text()) == json.loads(file.read_text())


def test_a_lost_or_foreign_file_is_refused(tmp_path):
    sha256 = "a" * 64
    with pytest.raises(DataError, match=r"tokenizer.json is not there: give the data_dir that the run was"):
        stock_tokenizer(tmp_path, "bpe", sha256, 64)
    file = tokenizer_file(tmp_path, sha256)
    file.parent.mkdir(parents=True)
    for content in ("{", "[]", "{}", '{"added_tokens": 3}'):
        file.write_text(content)
        with pytest.raises(DataError, match="is not a tokenizer: delete it"):
            stock_tokenizer(tmp_path, "bpe", sha256, 64)
    file.write_text('{"added_tokens": [{"id": 5, "content": "<s>"}]}')
    with pytest.raises(DataError, match=r"has no <\|endoftext\|> among its added tokens"):
        stock_tokenizer(tmp_path, "bpe", sha256, 64)
