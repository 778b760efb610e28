"""Manifest of a prepared data set: its files, corpus and tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sweep.data.token_files import ArrayFile
from sweep.errors import DataError

FORMAT_VERSION = 1
"""Format of the manifest and its files; part of the directory's name, so that formats can coexist."""

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitManifest:
    """One split: consecutive documents, each followed by a separator."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_documents: int
    n_tokens: int  # separators included
    n_bytes: int  # of text
    shards: tuple[ArrayFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartManifest:
    """One part of a mixture: what both splits hold of it, and what is left of it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: str
    weight: float
    n_documents: int
    n_documents_held_out: int
    n_tokens: int  # separators included
    n_tokens_held_out: int
    n_bytes: int
    n_documents_left: int  # read and not used, copies of documents of other parts included
    n_bytes_left: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Contents of manifest.json."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    format_version: int
    corpus: str
    corpus_sha256: str
    tokenizer: str
    tokenizer_sha256: str  # of the recipe: known before preparation, part of run keys
    tokenizer_file_sha256: str  # of the trained tokenizer: recorded in points
    vocab_size: int
    separator: int
    train: SplitManifest
    heldout: SplitManifest
    token_bytes: ArrayFile
    heldout_document_ends: ArrayFile
    parts: tuple[PartManifest, ...] = ()  # of a mixture

    @property
    def files(self) -> tuple[ArrayFile, ...]:
        """All files except the manifest."""
        return (*self.train.shards, *self.heldout.shards, self.token_bytes, self.heldout_document_ends)


def parse_manifest(path: Path, content: bytes) -> Manifest:
    """Parse a manifest read from `path`.

    Raises:
        DataError: It has another format version, or is not a valid manifest.
    """
    again = f"delete {path.parent} and prepare the data again"
    try:
        values = json.loads(content)
        version = values["format_version"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is not a valid manifest of prepared data: {again}") from None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format_version {version!r}, this version of sweep reads {FORMAT_VERSION}: {again}"
        )
    try:
        return TypeAdapter(Manifest).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is invalid at {place} ({first['msg']}): {again}") from None
