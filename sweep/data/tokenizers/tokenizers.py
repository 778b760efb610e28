"""The tokenizer interface, the byte tokenizer, and the registry of tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sweep.config import AnyTokenizerConfig, PretrainedTokenizerConfig, TokenizerConfig
from sweep.data.documents import Document, place_of
from sweep.data.tokenizers.bpe import BpeTokenizer, train_bpe
from sweep.data.tokenizers.pretrained import (
    PretrainedTokenizer,
    check_pretrained,
    pretrained_identity,
    read_pretrained,
)
from sweep.errors import DataError, InputError
from sweep.identity import sha256_json


class Tokenizer(Protocol):
    """Lossless mapping of text to ids: a document's ids and its separator represent exactly its bytes."""

    vocab_size: int
    separator: int
    """The id that ends every document."""

    token_bytes: NDArray[np.int64]
    """Number of bytes that each id represents, shape (vocab_size,). The separator represents 0, or -1 where
    the tokenizer adds a space to every document."""

    sha256: str
    """Identity of the mapping; for a trained tokenizer, the hash of its file."""

    def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        """Return the ids of each document, without separators. Raises DataError for invalid text."""
        ...


class ByteTokenizer:
    """Bytes as ids. Byte 0, which text does not contain, separates documents."""

    separator = 0

    def __init__(self, sha256: str, vocab_size: int = 256) -> None:
        self.sha256, self.vocab_size = sha256, vocab_size
        self.token_bytes = np.ones(vocab_size, dtype=np.int64)
        self.token_bytes[self.separator] = 0

    def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        """Return the bytes of each document. Raises DataError for byte 0 and bytes outside the vocabulary."""
        for document in documents:
            largest = max(document.content, default=0) if self.vocab_size < 256 else 0
            if largest >= self.vocab_size:
                raise _outside_vocabulary(document.name, largest, self.vocab_size)
            if place := place_of(document, b"\0"):
                raise _nul_is_separator(place)
        return [np.frombuffer(document.content, dtype=np.uint8).astype(np.int64) for document in documents]


def _outside_vocabulary(place: str, byte: int, vocab_size: int) -> DataError:
    return DataError(
        f"{place}: byte {byte} is outside the vocabulary of tokenizer.vocab_size={vocab_size}: raise it to "
        f"{byte + 1} or more"
    )


def _nul_is_separator(place: str) -> DataError:
    return DataError(
        f"{place} holds a byte 0, which is the byte tokenizer's separator: remove it from the text or use "
        f"tokenizer=bpe"
    )


def _build_byte(
    config: TokenizerConfig, corpus_sha256: str, training: Iterable[Document], data_dir: Path
) -> Tokenizer:
    return ByteTokenizer(tokenizer_sha256(config, corpus_sha256), config.vocab_size)


def _build_bpe(
    config: TokenizerConfig, corpus_sha256: str, training: Iterable[Document], data_dir: Path
) -> Tokenizer:
    file = tokenizer_file(data_dir, tokenizer_sha256(config, corpus_sha256))
    if not file.is_file():
        train_bpe(training, config.vocab_size, file)
    return BpeTokenizer(file, config.vocab_size)


def _build_pretrained(
    config: PretrainedTokenizerConfig, corpus_sha256: str, training: Iterable[Document], data_dir: Path
) -> Tokenizer:
    return PretrainedTokenizer(config)


def _vocab_identity(config: TokenizerConfig) -> Mapping[str, Any]:
    return {"vocab_size": config.vocab_size}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One kind of tokenizer: its constructor, and the parts of its identity."""

    version: int  # increased when the same config and text would give other ids
    is_trained: bool
    identity: Callable[[Any], Mapping[str, Any]]  # JSON of a config, in addition to its name
    build: Callable[[Any, str, Iterable[Document], Path], Tokenizer]


TOKENIZERS: dict[str, Recipe] = {
    "byte": Recipe(version=1, is_trained=False, identity=_vocab_identity, build=_build_byte),
    "bpe": Recipe(version=1, is_trained=True, identity=_vocab_identity, build=_build_bpe),
    "pretrained": Recipe(version=1, is_trained=False, identity=pretrained_identity, build=_build_pretrained),
}


def build_tokenizer(
    config: AnyTokenizerConfig, corpus_sha256: str, training: Iterable[Document], data_dir: Path
) -> Tokenizer:
    """Return the tokenizer of a config; a trainable one is trained once and then read from `data_dir`.

    `training` is read at most once, and only if the tokenizer has to be trained.

    Raises:
        InputError: The name is unknown, or a required library is not installed.
        DataError: The tokenizer cannot be trained on this text, or its saved file is invalid.
    """
    return _recipe(config).build(config, corpus_sha256, training, data_dir)


def tokenizer_sha256(config: AnyTokenizerConfig, corpus_sha256: str) -> str:
    """Return the hash of a tokenizer's recipe, which includes the corpus if it is trained on one.

    Not to be confused with `Tokenizer.sha256`, the content of the trained tokenizer. Raises DataError when a
    pretrained tokenizer is not found.
    """
    recipe = _recipe(config)
    return sha256_json(
        {
            "name": config.name,
            "recipe_version": recipe.version,
            "corpus_sha256": corpus_sha256 if recipe.is_trained else None,
            **recipe.identity(config),
        }
    )


def vocab_size(config: AnyTokenizerConfig) -> int:
    """Return the number of ids. Raises DataError when a pretrained tokenizer is not found."""
    if isinstance(config, PretrainedTokenizerConfig):
        return read_pretrained(config).vocab_size
    return config.vocab_size


def check_tokenizer(
    config: AnyTokenizerConfig,
    *,
    nul: str | None = None,
    space_mark: str | None = None,
    largest_byte: int | None = None,
) -> None:
    """Raise InputError or DataError, before any text is encoded, for a tokenizer that cannot be used.

    `nul` and `space_mark` are the first places of a byte 0 and of `SPACE_MARK` in the text, `largest_byte` is
    its largest byte; all are None where the text has not been read.
    """
    if isinstance(config, PretrainedTokenizerConfig):
        check_pretrained(config, space_mark)
    elif config.name == "byte":
        if nul is not None:
            raise _nul_is_separator(nul)
        if largest_byte is not None and largest_byte >= config.vocab_size:
            raise _outside_vocabulary("the text", largest_byte, config.vocab_size)


def tokenizer_file(data_dir: Path, tokenizer_sha256: str) -> Path:
    """Return the path of a trained tokenizer, a file in the `tokenizers` library's format."""
    return data_dir / "tokenizers" / tokenizer_sha256[:16] / "tokenizer.json"


def _recipe(config: AnyTokenizerConfig) -> Recipe:
    if config.name not in TOKENIZERS:
        raise InputError(f"unknown tokenizer.name={config.name}: choose from {', '.join(TOKENIZERS)}")
    return TOKENIZERS[config.name]
