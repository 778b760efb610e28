"""Other people's tokenizers: a tokenizer.json that loses no byte of a text, from a file or the hub."""

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
from sweep.data.documents import Document, decoded
from sweep.data.sources.hub import check_pinned, download, is_path
from sweep.data.tokenizers.tokenizers_library import all_cores, tokenizers_library
from sweep.errors import DataError, InputError

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|end_of_sentence|>", "</s>", "<eos>")
"""What the published tokenizers end a document with, in the order they are looked for."""

PROBE = " Two  spaces, a\ttab,\n\na naïve → 🦊, UPPER, ½ ﬁ e\u0301 and a tail "
"""Text that a tokenizer which normalises, strips or drops anything does not give back."""

SPACE = "\u2581"  # stands for a space in SentencePiece's vocabularies


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedFile:
    """What a tokenizer.json says, read without the library: all that a plan needs."""

    path: Path
    sha256: str
    n_tokens: int  # ids go from 0 to n_tokens - 1
    vocab_size: int  # with the padding the config asks for
    separator: int
    byte_level: bool  # its characters stand for bytes, as in GPT-2; else for themselves
    added: Mapping[int, str]  # the text of tokens outside the model's own vocabulary


class PretrainedTokenizer:
    """A tokenizer.json of any model that accounts for every byte: byte-level BPE, or with byte fallback."""

    def __init__(self, config: PretrainedTokenizerConfig) -> None:
        """Raises InputError without the `tokenizers` library, DataError for a file that does not fit."""
        described = read_pretrained(config)
        self.vocab_size = described.vocab_size
        self.separator = described.separator
        self.sha256 = described.sha256
        try:
            self._fast = tokenizers_library("pretrained").Tokenizer.from_file(str(described.path))
        except Exception as error:  # the library raises bare Exceptions
            if isinstance(error, InputError):
                raise
            raise DataError(f"{described.path} is not a tokenizer ({error}): choose another") from None
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = True  # a separator spelled out in a text is ordinary text
        self.token_bytes = _token_bytes(self._fast.get_vocab(with_added_tokens=True), described)
        self._check_lossless(described.path)

    def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        """The ids of each document, no special tokens among them."""
        texts = [decoded(document) for document in documents]
        with all_cores():
            encodings = self._fast.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def _check_lossless(self, path: Path) -> None:
        ids = self._fast.encode(PROBE, add_special_tokens=False).ids
        n_bytes = int(self.token_bytes[ids].sum())
        if n_bytes != len(PROBE.encode()) or self._fast.decode(ids, skip_special_tokens=False) != PROBE:
            raise DataError(
                f"{path} does not give every text back byte for byte (it adds, drops or replaces characters) "
                f"and bits per byte rest on that: choose a byte-level tokenizer, such as GPT-2's or Llama 3's"
            )


def pretrained_identity(config: PretrainedTokenizerConfig) -> Mapping[str, Any]:
    """What names a pretrained tokenizer: the content of its file, and what the config makes of it."""
    found = read_pretrained(config)
    return {"file_sha256": found.sha256, "separator": found.separator, "vocab_size": found.vocab_size}


def read_pretrained(config: PretrainedTokenizerConfig) -> PretrainedFile:
    """Reads the file a config names, fetching it from the hub where it is no path.

    Raises:
        InputError: The revision of a name on the hub is no commit.
        DataError: The file is not there or no tokenizer, or has no such separator, or too many tokens.
    """
    path = _file(config)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"tokenizer.path={path} cannot be read ({error.strerror}): check the path") from None
    return _described(path, content, config.separator, config.vocab_size)


@lru_cache(maxsize=4)  # a plan asks several times
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
            f"{path} is not a tokenizer in the format of the tokenizers library: give a tokenizer.json"
        ) from None
    if vocab_size is not None and vocab_size < n_tokens:
        raise DataError(
            f"tokenizer.vocab_size={vocab_size} is less than the {n_tokens} tokens of {path}: "
            f"give at least {n_tokens}, or null"
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
    wanted = SEPARATORS if separator is None else (separator,)
    for text in wanted:
        if text in added:
            return added[text]
    shown = ", ".join(list(added)[:8]) or "none at all"
    raise DataError(
        f"{path} has no special token {' or '.join(wanted)} to end documents with: "
        f"set tokenizer.separator to one of its own ({shown})"
    )


def _token_bytes(vocabulary: Mapping[str, int], described: PretrainedFile) -> NDArray[np.int64]:
    """Bytes each id stands for, shape (vocab_size,), if the tokenizer loses none."""
    n_bytes = np.zeros(described.vocab_size, dtype=np.int64)
    for text, token in vocabulary.items():
        if token in described.added:
            n_bytes[token] = len(described.added[token].encode())
        elif described.byte_level:
            n_bytes[token] = len(text)  # one character for each byte
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
        raise InputError(
            f"tokenizer.revision is for names on the hub, {config.path} is a path: set it to null"
        )
    path = Path(config.path).expanduser()
    return path / "tokenizer.json" if path.is_dir() else path


def _check_client() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise InputError(
            "a tokenizer of the hub needs the huggingface_hub library: pip install 'sweep[train]', "
            "or give the path of a tokenizer.json"
        ) from None
