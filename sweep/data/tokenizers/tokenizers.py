"""How text becomes token ids, and which bytes each id stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sweep.config import AnyTokenizerConfig, PretrainedTokenizerConfig, TokenizerConfig
from sweep.data.documents import Document
from sweep.data.tokenizers.bpe import BpeTokenizer, train_bpe
from sweep.data.tokenizers.pretrained import PretrainedTokenizer, pretrained_identity, read_pretrained
from sweep.errors import DataError, InputError
from sweep.identity import sha256_json


class Tokenizer(Protocol):
    """Text to ids, with the bytes accounted for: the ids of a document stand for exactly its bytes."""

    vocab_size: int
    separator: int
    """The id that ends every document; it stands for no bytes."""

    token_bytes: NDArray[np.int64]
    """Bytes each id stands for, shape (vocab_size,); 0 for the separator."""

    sha256: str
    """Names what the tokenizer does; a trained one is named by the file it is saved in."""

    def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        """The ids of each document, without separators. Raises DataError for what cannot be encoded."""
        ...


class ByteTokenizer:
    """Each byte is its own id; byte 0, which text does not contain, separates documents."""

    separator = 0

    def __init__(self, sha256: str, vocab_size: int = 256) -> None:
        self.sha256, self.vocab_size = sha256, vocab_size
        self.token_bytes = np.ones(vocab_size, dtype=np.int64)
        self.token_bytes[self.separator] = 0

    def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        """The bytes of each document. Raises DataError for byte 0, and for one past the vocabulary."""
        for document in documents:
            largest = max(document.content, default=0) if self.vocab_size < 256 else 0
            if largest >= self.vocab_size:
                raise DataError(
                    f"{document.name}: byte {largest} is past tokenizer.vocab_size={self.vocab_size}: "
                    f"raise it to {largest + 1} or more"
                )
            place = document.content.find(0)
            if place >= 0:
                raise DataError(
                    f"{document.name}: byte 0 at offset {place} is the byte tokenizer's separator: "
                    f"remove it from the text or use tokenizer=bpe"
                )
        return [np.frombuffer(document.content, dtype=np.uint8).astype(np.int64) for document in documents]


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


def _our_identity(config: TokenizerConfig) -> Mapping[str, Any]:
    return {"vocab_size": config.vocab_size}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One kind of tokenizer: how it is made, and what its identity depends on."""

    version: int  # raised whenever the same config and text would give other ids
    is_trained: bool
    identity: Callable[[Any], Mapping[str, Any]]  # JSON of a config, beside its name
    build: Callable[[Any, str, Iterable[Document], Path], Tokenizer]


TOKENIZERS: dict[str, Recipe] = {
    "byte": Recipe(version=1, is_trained=False, identity=_our_identity, build=_build_byte),
    "bpe": Recipe(version=1, is_trained=True, identity=_our_identity, build=_build_bpe),
    "pretrained": Recipe(version=1, is_trained=False, identity=pretrained_identity, build=_build_pretrained),
}


def build_tokenizer(
    config: AnyTokenizerConfig, corpus_sha256: str, training: Iterable[Document], data_dir: Path
) -> Tokenizer:
    """The tokenizer of a config; a trained one learns from `training` once and is then read from `data_dir`.

    `training` is read at most once, and only by one that has yet to learn.

    Raises:
        InputError: The name is unknown, or a library it needs is not installed.
        DataError: It cannot be trained on this text, or its saved file is damaged.
    """
    return _recipe(config).build(config, corpus_sha256, training, data_dir)


def tokenizer_sha256(config: AnyTokenizerConfig, corpus_sha256: str) -> str:
    """Names a tokenizer before it is trained: the hash of its recipe, with the corpus if it learns from one.

    Not to be confused with `Tokenizer.sha256`, the content of the trained tokenizer. Raises DataError when a
    pretrained one is not there.
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
    """Ids a model must know. Raises DataError when a pretrained tokenizer is not there."""
    if isinstance(config, PretrainedTokenizerConfig):
        return read_pretrained(config).vocab_size
    return config.vocab_size


def tokenizer_file(data_dir: Path, tokenizer_sha256: str) -> Path:
    """Where a trained tokenizer is saved, in the `tokenizers` library's own format."""
    return data_dir / "tokenizers" / tokenizer_sha256[:16] / "tokenizer.json"


def _recipe(config: AnyTokenizerConfig) -> Recipe:
    if config.name not in TOKENIZERS:
        raise InputError(f"tokenizer.name={config.name} is not known: choose from {', '.join(TOKENIZERS)}")
    return TOKENIZERS[config.name]
