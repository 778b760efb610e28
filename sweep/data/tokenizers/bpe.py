"""Byte-pair encoding trained on a corpus's training split, with the `tokenizers` library."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sweep.data.documents import Document, decoded
from sweep.errors import DataError, DataInterrupted, InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer

SEPARATOR_TEXT = "<|endoftext|>"

BPE_MIN_FREQUENCY = 2
"""Pairs that occur once are not merged: such merges compress only the training split."""

_PARALLELISM = "TOKENIZERS_PARALLELISM"
_USER_SETTING = os.environ.get(_PARALLELISM)
_CALLS = Lock()
_calls = 0  # inside `all_cores`, by all threads
_IMPORTED_IN = os.getpid()


class BpeTokenizer:
    """Byte-level byte-pair encoding, trained on the training split.

    Source: Sennrich et al. 2016 (arXiv:1508.07909); byte alphabet and word splitting as in GPT-2 (Radford et
    al. 2019, section 2.2). The encoding is lossless: a token's text has one character per byte.
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
        """Return the ids of each document; the separator's text in a document is ordinary text."""
        return encode_batch(self._fast, documents)


def encode_batch(fast: FastTokenizer, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
    """Return the ids of each document without special tokens, encoded on all cores."""
    texts = [decoded(document) for document in documents]
    try:
        with all_cores():
            encodings = fast.encode_batch_fast(texts, add_special_tokens=False)
    except BaseException as error:
        reraise_stop(error)
        names = documents[0].name if len(documents) == 1 else f"a document from {documents[0].name} on"
        raise DataError(f"{names} cannot be encoded ({error}): choose another tokenizer") from None
    return [np.fromiter(ids := encoding.ids, np.int64, len(ids)) for encoding in encodings]


def reraise_stop(error: BaseException) -> None:
    """Raise an error again that asks the process to stop, and one for want of memory.

    The library's own are bare Exceptions, or panics of its Rust code, which are not Exceptions.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)):
        raise error


def tokenizers_library(name: str) -> Any:
    """Return the `tokenizers` library. Raises InputError, which names tokenizer `name`, if not installed."""
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            f"tokenizer={name} needs the tokenizers library: pip install 'sweep[train]', "
            f"or use tokenizer=byte"
        ) from None
    return tokenizers


@contextmanager
def all_cores() -> Iterator[None]:
    """Let the library use all cores inside the context, and disable its threads afterwards.

    A forked child inherits the library's thread pool without its threads and would deadlock; some versions
    also warn at every fork unless the variable is set. A value set by the user is kept. Several threads may
    be inside at a time.
    """
    global _calls
    all_cores = "true" if os.getpid() == _IMPORTED_IN else "false"
    with _CALLS:
        _calls += 1
        os.environ[_PARALLELISM] = _USER_SETTING or all_cores
    try:
        yield
    finally:
        with _CALLS:
            _calls -= 1
            if not _calls:
                os.environ[_PARALLELISM] = _USER_SETTING or "false"


def _load(file: Path, vocab_size: int) -> FastTokenizer:
    try:
        fast = tokenizers_library("bpe").Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(
            f"{file} is not a valid tokenizer ({error}): delete it and prepare the data again"
        ) from None
    if fast.get_vocab_size() != vocab_size or fast.token_to_id(SEPARATOR_TEXT) is None:
        raise DataError(
            f"{file} has {fast.get_vocab_size()} tokens, expected {vocab_size} including {SEPARATOR_TEXT}: "
            f"delete it and prepare the data again"
        )
    fast.encode_special_tokens = True  # not saved in the file
    return fast  # type: ignore[no-any-return]


def train_bpe(documents: Iterable[Document], vocab_size: int, file: Path) -> None:
    """Train `vocab_size` tokens, including the 256 bytes and the separator, and save them to `file`.

    The file's bytes depend only on the documents, not on their order or the number of threads. The file is
    written atomically.

    Raises:
        InputError: The `tokenizers` library is not installed.
        DataError: The text has too few repeated pairs for `vocab_size` tokens.
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
            f"tokenizer.vocab_size={vocab_size} is too large for the training text: "
            f"choose at most {fast.get_vocab_size()}, or use a larger corpus"
        )
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fast.save(str(unfinished))
        unfinished.replace(file)
    except Exception as error:  # the library raises bare Exceptions
        unfinished.unlink(missing_ok=True)
        raise DataInterrupted(
            f"{file} cannot be written ({error}): fix the cause and repeat the command"
        ) from None
