"""Export of tokenizers for transformers: tokenizer.json and tokenizer_config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.data.tokenizers.bpe import SEPARATOR_TEXT
from sweep.data.tokenizers.tokenizers import tokenizer_file
from sweep.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class StockTokenizer:
    """Files of a transformers fast tokenizer with the same ids as the sweep's tokenizer."""

    separator: int  # the id that ends every document
    tokenizer: dict[str, Any]  # tokenizer.json
    config: dict[str, Any]  # tokenizer_config.json

    def write(self, directory: Path) -> None:
        """Write both files into the existing `directory`."""
        for name, content in (("tokenizer", self.tokenizer), ("tokenizer_config", self.config)):
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (directory / f"{name}.json").write_text(text, encoding="utf-8")


def stock_tokenizer(data_dir: Path, name: str, tokenizer_sha256: str, seq_len: int) -> StockTokenizer:
    """Return the tokenizer of a run: a trained one is read from `data_dir`, the byte tokenizer is generated.

    The separator's text in a document is ordinary text, as in training. Raises DataError when the file is
    missing or invalid.
    """
    file = tokenizer_file(data_dir, tokenizer_sha256)
    tokenizer = byte_level() if name == "byte" else _read(file)
    separator = next(
        (token["id"] for token in tokenizer["added_tokens"] if token["content"] == SEPARATOR_TEXT), None
    )
    if separator is None:
        raise DataError(
            f"{file}: {SEPARATOR_TEXT} not found in its added tokens: delete it and prepare the data again"
        )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SEPARATOR_TEXT,
        "eos_token": SEPARATOR_TEXT,
        "model_max_length": seq_len,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    return StockTokenizer(separator=separator, tokenizer=tokenizer, config=config)


def _read(file: Path) -> dict[str, Any]:
    try:
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(tokenizer["added_tokens"], list):
            return dict(tokenizer)
    except FileNotFoundError:
        raise DataError(
            f"{file} not found: give the data_dir that the run was trained with, or run sweep data prepare"
        ) from None
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{file} is not a valid tokenizer: delete it and prepare the data again")


def byte_level() -> dict[str, Any]:
    """Return the byte tokenizer in the format of the tokenizers library: byte-level BPE without merges.

    The id of each byte is its value. Byte 0 is the separator: it has no text and is dropped by encoding.
    """
    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
    vocabulary = {SEPARATOR_TEXT if byte == 0 else text: byte for text, byte in vocabulary.items()}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": SEPARATOR_TEXT, **flags}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def byte_alphabet() -> list[str]:
    """Return the character that represents each byte: itself if visible, else the next one from U+0100.

    Source: Radford et al. 2019, `bytes_to_unicode` of the released encoder.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte if byte in visible else 256 + hidden.index(byte)) for byte in range(256)]
