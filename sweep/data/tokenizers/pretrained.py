"""Pretrained tokenizers: a lossless tokenizer.json from a file or from the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.config import PretrainedTokenizerConfig
from sweep.data.documents import Document
from sweep.data.sources.hub import check_pinned, download, is_path
from sweep.data.tokenizers.bpe import encode_batch, tokenizers_library
from sweep.errors import DataError, InputError

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|end_of_sentence|>", "</s>", "<eos>")
"""End-of-document tokens of published tokenizers, in order of preference."""

PROBE = " Two  spaces, a\ttab,\n\na naïve → 🦊, UPPER, ½ ﬁ e\u0301 and a tail "
"""Text that a tokenizer with any normalisation, stripping or unknown token cannot reproduce."""

SPACE = "\u2581"  # represents a space in SentencePiece vocabularies


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedFile:
    """Contents of a tokenizer.json that a plan needs, read without the `tokenizers` library."""

    path: Path
    sha256: str
    n_tokens: int  # ids are 0 to n_tokens - 1
    vocab_size: int  # including the padding set in the config
    separator: int
    byte_level: bool  # True: each character of a token represents a byte, as in GPT-2
    added: Mapping[int, str]  # texts of tokens outside the model's vocabulary


class PretrainedTokenizer:
    """A lossless tokenizer.json of any model: byte-level BPE, or with byte fallback."""

    def __init__(self, config: PretrainedTokenizerConfig) -> None:
        """Raise InputError without the `tokenizers` library, DataError for an unsuitable file."""
        described = read_pretrained(config)
        self.vocab_size = described.vocab_size
        self.separator = described.separator
        self.sha256 = described.sha256
        try:
            self._fast = tokenizers_library("pretrained").Tokenizer.from_file(str(described.path))
        except Exception as error:  # the library raises bare Exceptions
            if isinstance(error, InputError):
                raise
            raise DataError(f"{described.path} is not a valid tokenizer ({error}): choose another") from None
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = True  # the separator's text in a document is ordinary text
        self.token_bytes = _token_bytes(self._fast.get_vocab(with_added_tokens=True), described)
        self._check_lossless(described.path)

    def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        """Return the ids of each document, without special tokens."""
        return encode_batch(self._fast, documents)

    def _check_lossless(self, path: Path) -> None:
        ids = self._fast.encode(PROBE, add_special_tokens=False).ids
        n_bytes = int(self.token_bytes[ids].sum())
        if n_bytes != len(PROBE.encode()) or self._fast.decode(ids, skip_special_tokens=False) != PROBE:
            raise DataError(
                f"{path} is not lossless (it adds, drops or replaces characters), as bits per byte require: "
                f"choose a byte-level tokenizer, such as GPT-2's or Llama 3's"
            )


def pretrained_identity(config: PretrainedTokenizerConfig) -> Mapping[str, Any]:
    """Return the identity of a pretrained tokenizer: its file's hash, separator and vocabulary size."""
    found = read_pretrained(config)
    return {"file_sha256": found.sha256, "separator": found.separator, "vocab_size": found.vocab_size}


def read_pretrained(config: PretrainedTokenizerConfig) -> PretrainedFile:
    """Read the tokenizer.json of a config; download it from the hub if `path` is not a local path.

    Raises:
        InputError: The revision of a name on the hub is not a commit.
        DataError: The file is missing or invalid, lacks the separator, or has more tokens than `vocab_size`.
    """
    path = _file(config)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"tokenizer.path={path} cannot be read ({error.strerror}): check the path") from None
    return _described(path, content, config.separator, config.vocab_size)


@lru_cache(maxsize=4)  # a plan reads it several times
def _described(path: Path, content: bytes, separator: str | None, vocab_size: int | None) -> PretrainedFile:
    try:
        values = json.loads(content)
        added = {int(token["id"]): str(token["content"]) for token in values["added_tokens"]}
        vocabulary = values["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        n_tokens = 1 + max([*ids, *added])
        decoder = json.dumps(values["decoder"])
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path} is not in the format of the tokenizers library: give a valid tokenizer.json"
        ) from None
    if vocab_size is not None and vocab_size < n_tokens:
        raise DataError(
            f"tokenizer.vocab_size={vocab_size} is less than the {n_tokens} tokens in {path}: "
            f"set it to at least {n_tokens}, or null"
        )
    return PretrainedFile(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        n_tokens=n_tokens,
        vocab_size=vocab_size or n_tokens,
        separator=_separator(path, separator, {text: token for token, text in added.items()}),
        byte_level='"ByteLevel"' in decoder,
        added=added,
    )


def _separator(path: Path, separator: str | None, added: Mapping[str, int]) -> int:
    candidates = SEPARATORS if separator is None else (separator,)
    for text in candidates:
        if text in added:
            return added[text]
    available = ", ".join(list(added)[:8]) or "none available"
    raise DataError(
        f"{path}: special token {' or '.join(candidates)} for the end of documents not found: "
        f"set tokenizer.separator to one of the file's ({available})"
    )


def _token_bytes(vocabulary: Mapping[str, int], described: PretrainedFile) -> NDArray[np.int64]:
    """Return the number of bytes that each id represents, shape (vocab_size,), for a lossless tokenizer."""
    n_bytes = np.zeros(described.vocab_size, dtype=np.int64)
    for text, token in vocabulary.items():
        if token in described.added:
            n_bytes[token] = len(described.added[token].encode())
        elif described.byte_level:
            n_bytes[token] = len(text)  # one character per byte
        elif len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            n_bytes[token] = 1  # byte fallback
        else:
            n_bytes[token] = len(text.replace(SPACE, " ").encode())
    n_bytes[described.separator] = 0
    return n_bytes


def _file(config: PretrainedTokenizerConfig) -> Path:
    if not is_path(config.path):
        check_pinned("tokenizer.path", config.path, config.revision)
        _check_client()
        assert config.revision is not None
        return download("tokenizer.path", config.path, config.revision, "tokenizer.json")
    if config.revision is not None:
        raise InputError(f"tokenizer.revision has no effect on the local path {config.path}: set it to null")
    path = Path(config.path).expanduser()
    return path / "tokenizer.json" if path.is_dir() else path


def _check_client() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise InputError(
            "a tokenizer from the hub needs the huggingface_hub library: pip install 'sweep[train]', "
            "or give the path of a tokenizer.json"
        ) from None
