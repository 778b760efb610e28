"""The byte tokenizer with fewer than 256 ids."""

import numpy as np
import pytest

from sweep.config import TokenizerConfig
from sweep.data.documents import document
from sweep.data.tokenizers.tokenizers import build_tokenizer
from sweep.errors import DataError, InputError


def built(tmp_path):
    config = TokenizerConfig(name="byte", vocab_size=65)
    return build_tokenizer(config, "0" * 64, [], tmp_path)


def test_ids_are_bytes_and_the_width_is_what_was_asked_for(tmp_path):
    tokenizer = built(tmp_path)
    (ids,) = tokenizer.encode([document("a", b"\x01 @\n")])
    assert np.array_equal(ids, [1, 32, 64, 10])
    assert tokenizer.token_bytes.shape == (65,)


def test_a_byte_past_the_vocabulary_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.txt: byte 65 is past tokenizer\.vocab_size=65: raise it to 66"):
        built(tmp_path).encode([document("a.txt", b"@A")])


def test_more_than_there_are_bytes_is_refused():
    with pytest.raises(InputError, match="vocab_size=257: the byte tokenizer has at most 256"):
        TokenizerConfig(name="byte", vocab_size=257)
