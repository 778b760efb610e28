"""Pretrained tokenizers: a lossless tokenizer.json from a file or from the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sweep.config import PretrainedTokenizerConfig
from sweep.config.places import user_path
from sweep.data.documents import SPACE_MARK, Document, place_of
from sweep.data.sources.first_bytes import read_text
from sweep.data.sources.hub import check_no_url, check_pinned, download, is_path
from sweep.data.tokenizers.bpe import all_cores, encode_batch, reraise_stop, tokenizers_library
from sweep.data.tokenizers.probes import MIXED, PROBES, character_groups, text_of
from sweep.errors import DataError, InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|end_of_sentence|>", "</s>", "<eos>")
"""End-of-document tokens of published tokenizers, in order of preference."""

MAX_VOCABULARY = 2**24
"""Limit of the vocabulary, ten times the largest published one; files with a wrong id have more."""

SAMPLING_KEYS = ("dropout", "alpha", "nbest_size")
"""Keys of a model that make it sample: BPE dropout (Provilkov et al. 2020), subword regularisation
(Kudo 2018)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedFile:
    """Contents of a tokenizer.json that a plan needs, read without the `tokenizers` library."""

    path: Path
    sha256: str
    n_tokens: int  # ids are 0 to n_tokens - 1
    vocab_size: int  # including the padding set in the config
    separator: int
    byte_level: bool  # True: each character of a token represents a byte, as in GPT-2
    text: str  # of the file, without a byte order mark; its added tokens keep the spaces around them
    replaced: tuple[str, ...]  # texts that a normalizer replaces by others
    added: Mapping[int, str]  # texts of tokens outside the model's vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class LeadingSpace:
    """The space that a SentencePiece tokenizer puts before every text, and removes when decoding."""

    n_bytes: int  # 1: it adds one; 0: it does not
    is_shared: bool = False  # True: it adds none before a text that begins with one, which then loses its own


class PretrainedTokenizer:
    """A lossless tokenizer.json of any model: byte-level BPE, or with byte fallback.

    Tokenizers converted from SentencePiece (Llama 2, Mistral, T5) put a space before every document. The
    separator takes its byte back: it represents -1 byte, so that the bytes of a document's ids and its
    separator add up to the document. Added tokens that take the spaces around them leave them in the text.
    """

    def __init__(self, config: PretrainedTokenizerConfig) -> None:
        """Raise InputError without the `tokenizers` library, DataError for an unsuitable file."""
        described = read_pretrained(config)
        self.vocab_size = described.vocab_size
        self.separator = described.separator
        self.sha256 = described.sha256
        self._fast = _load(described)
        vocabulary = self._fast.get_vocab(with_added_tokens=True)
        _check_ids(vocabulary, described)
        self.token_bytes = _token_bytes(vocabulary, described)
        self._leading = _check_lossless(self._fast, self.token_bytes, described.path)
        _check_characters(self._fast, self.token_bytes, described, self._leading.n_bytes)
        self.token_bytes[self.separator] = -self._leading.n_bytes
        self.decodes_mark = _round_trip(self._fast, self.token_bytes, f"a{SPACE_MARK}")[1] == f"a{SPACE_MARK}"

    def encode(self, documents: Sequence[Document]) -> list[NDArray[np.int64]]:
        """Return the ids of each document, without special tokens.

        Raises DataError for text that contains SentencePiece's mark for a space, which decodes as a space.
        """
        if not self.decodes_mark:
            for found in documents:
                if place := place_of(found, SPACE_MARK.encode()):
                    raise mark_is_space(place)
        if self._leading.is_shared:
            documents = [
                replace(found, content=b" " + found.content) if _begins_with_space(found.content) else found
                for found in documents
            ]
        return encode_batch(self._fast, documents)


def _begins_with_space(content: bytes) -> bool:
    return content.startswith(b" ")


def mark_is_space(place: str) -> DataError:
    """Return the error for text with SPACE_MARK, which the tokenizer decodes as a space."""
    return DataError(
        f"{place} holds {SPACE_MARK} (U+2581), which is a space in this tokenizer: replace it in the text, "
        f"or choose a byte-level tokenizer such as GPT-2's"
    )


def check_pretrained(config: PretrainedTokenizerConfig, corpus_mark: str | None = None) -> None:
    """Raise what building the tokenizer would raise; nothing more than `read_pretrained` without the library.

    `corpus_mark` is the first place of SPACE_MARK in the text to encode, if there is one.

    Raises:
        InputError: The revision of a name on the hub is not a commit.
        DataError: The file is unsuitable: invalid, not deterministic or not lossless.
    """
    described = read_pretrained(config)
    if importlib.util.find_spec("tokenizers") is not None:
        decodes_mark = _decodes_mark(described.sha256, config)
        if corpus_mark is not None and not decodes_mark:
            raise mark_is_space(corpus_mark)


@lru_cache(maxsize=4)  # experiments with arms plan several times, and large tokenizers load slowly
def _decodes_mark(sha256: str, config: PretrainedTokenizerConfig) -> bool:
    return PretrainedTokenizer(config).decodes_mark


def _load(described: PretrainedFile) -> FastTokenizer:
    """Return the library's tokenizer without truncation, padding and special tokens in text."""
    library = tokenizers_library("pretrained")
    try:
        fast = library.Tokenizer.from_str(described.text)
    except BaseException as error:  # the library raises bare Exceptions, and panics are no Exceptions
        reraise_stop(error)
        raise DataError(
            f"{described.path} cannot be read by version {library.__version__} of the tokenizers library "
            f"({error}): choose another tokenizer, or update with pip install -U tokenizers if the file is "
            f"newer"
        ) from None
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = True  # the separator's text in a document is ordinary text
    return fast  # type: ignore[no-any-return]


def _check_lossless(fast: FastTokenizer, token_bytes: NDArray[np.int64], path: Path) -> LeadingSpace:
    """Return the tokenizer's treatment of leading spaces. Raises DataError, with an example, for a lossy one.

    A tokenizer is lossless if decoding returns every text and the bytes of the ids add up to the text's,
    except for one space that the decoder removes.
    """
    for text in (*PROBES, MIXED):
        with _encodable(path, text):
            ids, back, _ = _round_trip(fast, token_bytes, text)
        if ids != fast.encode(text, add_special_tokens=False).ids:
            raise DataError(
                f"{path} is not deterministic: it encodes {text!r} in two ways, choose a tokenizer without "
                f"sampling"
            )
    plain = [_round_trip(fast, token_bytes, text) for text in PROBES]
    spaced = [_round_trip(fast, token_bytes, " " + text) for text in PROBES]
    if all(back == " " + text for text, (_, back, _) in zip(PROBES, plain, strict=True)):
        has_key = '"add_prefix_space":true' in fast.to_str()
        remedy = "set add_prefix_space to false in a copy of the file" if has_key else "choose another one"
        raise DataError(
            f"{path} is not lossless: it adds a space before text that begins without one "
            f"({PROBES[0]!r} is decoded as {plain[0][1]!r}), so bits per byte would be wrong: "
            f"{remedy}"
        )
    n_added = plain[0][2]
    is_shared = n_added == 1 and spaced[0][2] == 0 and spaced[0][1] == PROBES[0]
    for text, (_, back, n_surplus) in zip(PROBES, plain, strict=True):
        _check_text(path, text, back, n_surplus - n_added if n_added == 1 else n_surplus)
    for text, (_, back, n_surplus) in zip(PROBES, spaced, strict=True):
        wanted = text if is_shared else " " + text
        _check_text(path, wanted, back, n_surplus - (0 if is_shared else n_added))
    return LeadingSpace(n_bytes=n_added, is_shared=is_shared)


def _check_characters(
    fast: FastTokenizer, token_bytes: NDArray[np.int64], described: PretrainedFile, n_added: int
) -> None:
    """Raise DataError for a tokenizer that changes one of many characters, or a text that it replaces.

    `n_added` is the number of bytes that it adds to every text.
    """
    groups = list(character_groups())
    for group in [*_changed(fast, token_bytes, groups, n_added), *described.replaced]:
        for text in (*map(text_of, group), text_of([group]), text_of(group)):
            with _encodable(described.path, text):
                _, back, n_surplus = _round_trip(fast, token_bytes, text)
            _check_text(described.path, text, back, n_surplus - n_added)


def _changed(
    fast: FastTokenizer, token_bytes: NDArray[np.int64], groups: Sequence[str], n_added: int
) -> list[str]:
    """Return the groups of characters that the tokenizer changes; all if it cannot encode one."""
    texts = [text_of(group) for group in groups]
    try:
        with all_cores():
            ids = [encoding.ids for encoding in fast.encode_batch_fast(texts, add_special_tokens=False)]
            backs = fast.decode_batch(ids, skip_special_tokens=False)
    except BaseException as error:
        reraise_stop(error)
        return list(groups)
    return [
        group
        for group, text, own, back in zip(groups, texts, ids, backs, strict=True)
        if back != text or token_bytes[own].sum() != len(text.encode()) + n_added
    ]


@contextmanager
def _encodable(path: Path, text: str) -> Iterator[None]:
    """Raise DataError where the library cannot encode a text inside the context."""
    try:
        yield
    except BaseException as error:
        reraise_stop(error)
        raise DataError(
            f"{path} cannot encode {text!r} ({error}): choose a byte-level tokenizer, such as GPT-2's or "
            f"Llama 3's"
        ) from None


def _round_trip(fast: FastTokenizer, token_bytes: NDArray[np.int64], text: str) -> tuple[list[int], str, int]:
    """Return a text's ids, the text they decode to, and the bytes that they represent beyond its own."""
    ids = fast.encode(text, add_special_tokens=False).ids
    back = fast.decode(ids, skip_special_tokens=False)
    return ids, back, int(token_bytes[ids].sum()) - len(text.encode())


def _check_text(path: Path, text: str, back: str, n_surplus: int) -> None:
    if back == text and n_surplus == 0:
        return
    change = (
        f"decodes {text!r} as {back!r}"
        if unicodedata.normalize("NFC", back) != unicodedata.normalize("NFC", text)
        else f"decodes {text!a} as {back!a}"
        if back != text
        else f"encodes {text!a} in tokens of {len(text.encode()) + n_surplus} bytes instead of "
        f"{len(text.encode())}"
    )
    raise DataError(
        f"{path} is not lossless, as bits per byte require: it {change}: "
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
        path.stat()
    except OSError as error:
        raise DataError(f"tokenizer.path={path} cannot be read ({error.strerror}): check the path") from None
    content = read_text(path)
    return _described(path, content, config.separator, config.vocab_size)


@lru_cache(maxsize=4)  # a plan reads it several times
def _described(path: Path, content: bytes, separator: str | None, vocab_size: int | None) -> PretrainedFile:
    try:
        text = content.decode()
        values = json.loads(text)
        added = {int(token["id"]): str(token["content"]) for token in values["added_tokens"]}
        vocabulary = values["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        n_tokens = 1 + max([*ids, *added])
        decoder = json.dumps(values["decoder"])
        stripping = [token for token in values["added_tokens"] if token.get("lstrip") or token.get("rstrip")]
        replaced = tuple(_replaced(values.get("normalizer")))
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path} is not in the format of the tokenizers library: give a valid tokenizer.json"
        ) from None
    if sampling := [key for key in SAMPLING_KEYS if values["model"].get(key)]:
        given = ", ".join(f"{key}={values['model'][key]}" for key in sampling)
        raise DataError(
            f"{path} is not deterministic: its model has {given}, which encodes a text differently each "
            f"time: set {' and '.join(sampling)} to null in a copy of the file"
        )
    for token in stripping:
        token.update(lstrip=False, rstrip=False)
    if vocab_size is not None and vocab_size < n_tokens:
        raise DataError(
            f"tokenizer.vocab_size={vocab_size} is less than the {n_tokens} tokens in {path}: "
            f"set it to at least {n_tokens}, or null"
        )
    if max(n_tokens, vocab_size or 0) > MAX_VOCABULARY:
        raise DataError(
            f"{path} has a vocabulary of {max(n_tokens, vocab_size or 0)} tokens, at most {MAX_VOCABULARY} "
            f"can be used: choose another tokenizer or a lower tokenizer.vocab_size"
        )
    return PretrainedFile(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        n_tokens=n_tokens,
        vocab_size=vocab_size or n_tokens,
        separator=_separator(path, separator, {text: token for token, text in added.items()}),
        byte_level='"ByteLevel"' in decoder,
        text=json.dumps(values, ensure_ascii=False) if stripping else text,
        replaced=replaced,
        added=added,
    )


def _replaced(normalizer: Any) -> Iterator[str]:
    """Yield the texts that a normalizer replaces, without patterns."""
    if not isinstance(normalizer, Mapping):
        return
    for part in normalizer.get("normalizers", ()):
        yield from _replaced(part)
    text = normalizer.get("pattern", {}).get("String")
    if text and normalizer.get("content") is not None and text != SPACE_MARK:
        yield text


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


def _check_ids(vocabulary: Mapping[str, int], described: PretrainedFile) -> None:
    """Raise DataError where the library gives an added token another id than the file."""
    for token, text in described.added.items():
        if vocabulary.get(text) != token:
            raise DataError(
                f"{described.path} is inconsistent: its added token {text} has id {token}, and the "
                f"tokenizers library reads {vocabulary.get(text)}: save it again"
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
            n_bytes[token] = len(text.replace(SPACE_MARK, " ").encode())
    n_bytes[described.separator] = 0
    return n_bytes


def _file(config: PretrainedTokenizerConfig) -> Path:
    check_no_url("tokenizer.path", config.path)
    if not is_path(config.path):
        check_pinned("tokenizer.path", config.path, config.revision)
        _check_client()
        assert config.revision is not None
        return download("tokenizer.path", config.path, config.revision, "tokenizer.json")
    if config.revision is not None:
        raise InputError(f"tokenizer.revision has no effect on the local path {config.path}: set it to null")
    path = user_path(config.path, "tokenizer.path")
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.suffix == ".model" or (not file.exists() and file.with_name("tokenizer.model").is_file()):
        raise DataError(
            f"tokenizer.path={config.path} is a SentencePiece model: save it as a tokenizer.json, with "
            f"AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) of the transformers library"
        )
    return file


def _check_client() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise InputError(
            "a tokenizer from the hub needs the huggingface_hub library: pip install 'sweep[train]', "
            "or give the path of a tokenizer.json"
        ) from None
