"""Byte-pair encoding of our own: learned from the training split, saved once, read by every run."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sweep.data.documents import Document, decoded
from sweep.data.tokenizers.tokenizers_library import all_cores, tokenizers_library
from sweep.errors import DataError, DataInterrupted

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer

SEPARATOR_TEXT = "<|endoftext|>"

BPE_MIN_FREQUENCY = 2
"""Merges seen once are not learned: they would compress the training split and nothing else."""


class BpeTokenizer:
    """Byte-level byte-pair encoding, learned from the training split.

    Source: Sennrich et al. 2016 (arXiv:1508.07909); byte alphabet and splitting of words as in GPT-2
    (Radford et al. 2019, section 2.2). Both lose nothing: a token's text has one character for each of its
    bytes.
    """

    def __init__(self, file: Path, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        self._fast = _load(file, vocab_size)
        vocabulary = self._fast.get_vocab(with_added_tokens=True)
        self.separator = vocabulary[SEPARATOR_TEXT]
        self.token_bytes = np.zeros(vocab_size, dtype=np.int64)
        for text, token in vocabulary.items():
            self.token_bytes[token] = len(text)
        self.token_bytes[self.separator] = 0

    def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        """The ids of each document; a separator spelled out in a text is ordinary text."""
        texts = [decoded(document) for document in documents]
        with all_cores():
            encodings = self._fast.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]


def _load(file: Path, vocab_size: int) -> FastTokenizer:
    try:
        fast = tokenizers_library("bpe").Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(
            f"{file} is not a tokenizer ({error}): delete it and prepare the data again"
        ) from None
    if fast.get_vocab_size() != vocab_size or fast.token_to_id(SEPARATOR_TEXT) is None:
        raise DataError(
            f"{file} holds {fast.get_vocab_size()} tokens where {vocab_size} are wanted, {SEPARATOR_TEXT} "
            f"among them: delete it and prepare the data again"
        )
    fast.encode_special_tokens = True  # not saved in the file
    return fast  # type: ignore[no-any-return]


def train_bpe(documents: Iterable[Document], vocab_size: int, file: Path) -> None:
    """Learns `vocab_size` tokens, the 256 bytes and the separator among them, and saves them to `file`.

    Equal documents give an equal file, byte for byte, whatever their order and the number of threads. The
    file appears whole or not at all.

    Raises:
        InputError: The `tokenizers` library is not installed.
        DataError: The text repeats itself too little to yield so many tokens.
        DataInterrupted: The file cannot be written.
    """
    library = tokenizers_library("bpe")
    fast = library.Tokenizer(library.models.BPE())
    fast.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=BPE_MIN_FREQUENCY,
        special_tokens=[SEPARATOR_TEXT],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with all_cores():
        fast.train_from_iterator((decoded(document) for document in documents), trainer)
    if fast.get_vocab_size() < vocab_size:
        raise DataError(
            f"tokenizer.vocab_size={vocab_size} is more than the training text yields: "
            f"choose at most {fast.get_vocab_size()}, or a larger corpus"
        )
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fast.save(str(unfinished))
        unfinished.replace(file)
    except Exception as error:  # the library raises bare Exceptions
        unfinished.unlink(missing_ok=True)
        raise DataInterrupted(f"{file} cannot be written ({error}): see to that and start again") from None
