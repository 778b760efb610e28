"""Sources of text and kinds of tokenizers, one class for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from sweep.config.values import (
    STRICT,
    Count,
    Flag,
    Int,
    NonNegativeCount,
    OpenFraction,
    Positive,
    SetName,
)
from sweep.errors import InputError


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""One path or a list of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StdlibData:
    """The sources of the running Python's standard library."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["stdlib"]
    """The kind of source."""
    holdout_frac: OpenFraction = 0.08
    """Documents held out for evaluation, chosen by a hash of their content. Unit: fraction of documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonData:
    """All Python sources below some directories."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["python"]
    """The kind of source."""
    roots: Paths = ()
    """Directories; an empty list: the packages installed for the running Python."""
    holdout_frac: OpenFraction = 0.02
    """Documents held out for evaluation, chosen by a hash of their content. Unit: fraction of documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextData:
    """Text files in UTF-8, also compressed with gzip or zstd."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["text"]
    """The kind of source."""
    files: Annotated[Paths, Field(min_length=1)]
    """Paths and globs, one or a list; ** matches subdirectories."""
    delimiter: str | None = None
    """Text between two documents, such as \\n for one document per line; null: a file is one document."""
    holdout_frac: OpenFraction = 0.05
    """Documents held out for evaluation, chosen by a hash of their content. Unit: fraction of documents."""

    def __post_init__(self) -> None:
        if self.delimiter == "":
            raise InputError("data.delimiter is empty: give a text, or null to make each file a document")


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFaceData:
    """A data set of the Hugging Face hub, or local Parquet, Arrow, JSON Lines or CSV files."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["huggingface"]
    """The kind of source."""
    dataset: Annotated[str, Field(min_length=1)]
    """OWNER/NAME on the hub, or the path of a directory or file."""
    revision: str | None = None
    """Commit on the hub, 40 hex digits; required there."""
    subset: str | None = None
    """Configuration on the hub, for a data set with several."""
    split: str | None = None
    """Split; null: train on the hub, every file of a directory."""
    column: str = "text"
    """Column that holds the text."""
    streaming: Flag = True
    """Read documents of the hub as they arrive and keep no copy; false: download once and keep the files."""
    n_documents: Count | None = None
    """Read only the first documents; null: all. Unit: documents."""
    holdout_frac: OpenFraction = 0.02
    """Documents held out for evaluation, chosen by a hash of their content. Unit: fraction of documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticData:
    """Symbols of a Markov chain with an exactly known entropy rate."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["synthetic"]
    """The kind of source."""
    seed: NonNegativeCount = 0
    """Seed of the chain and of its documents. Unit: seed."""
    n_symbols: Annotated[Int, Field(ge=2, le=64)] = 64
    """Size of the alphabet. Unit: symbols."""
    order: Literal[1, 2] = 2
    """Preceding symbols that the next one depends on. Unit: symbols."""
    n_documents: Count = 12000
    """Documents. Unit: documents."""
    document_symbols: Annotated[Int, Field(ge=16, le=2**20)] = 1023
    """Length of each document. Unit: symbols."""
    holdout_frac: OpenFraction = 0.05
    """Documents held out for evaluation, chosen by a hash of their content. Unit: fraction of documents."""


PartConfig = Annotated[
    StdlibData | PythonData | TextData | HuggingFaceData | SyntheticData, Field(discriminator="source")
]
"""A corpus that is no mixture."""

MAX_PARTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureData:
    """Several corpora, mixed so that their tokens have given weights.

    Documents of the parts follow each other in turns until one part has no more.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["mixture"]
    """The kind of source."""
    parts: Annotated[dict[SetName, PartConfig], Field(min_length=1, max_length=MAX_PARTS)]
    """Corpora by name, each with the keys of `data`."""
    weights: dict[SetName, Positive]
    """Share of each part in the tokens, relative to the others. Unit: ratio."""
    holdout_frac: OpenFraction = 0.02
    """Documents held out for evaluation, chosen by a hash of their content. Unit: fraction of documents."""

    def __post_init__(self) -> None:
        if self.parts.keys() != self.weights.keys():
            raise InputError(
                f"data.weights are of {', '.join(self.weights)} and data.parts are {', '.join(self.parts)}: "
                f"give each part one weight"
            )
        check_no_holdout("data.parts", self.parts, "data.holdout_frac decides for all parts")


def check_no_holdout(section: str, corpora: Mapping[str, PartConfig], reason: str) -> None:
    """Raise InputError for a corpus with a `holdout_frac` of its own, which has no effect."""
    for name, config in corpora.items():
        default = next(field.default for field in fields(config) if field.name == "holdout_frac")
        if config.holdout_frac != default:
            raise InputError(f"{section}.{name}.holdout_frac has no effect, since {reason}: leave it out")


DataConfig = Annotated[
    StdlibData | PythonData | TextData | HuggingFaceData | SyntheticData | MixtureData,
    Field(discriminator="source"),
]
"""The source of documents and the share held out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """A tokenizer without external files: bytes, or byte-pair encoding trained on the training split."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["byte", "bpe"]
    """The kind of tokenizer."""
    vocab_size: Annotated[Int, Field(ge=2, le=2**31)]
    """Vocabulary: at least 257 for bpe, at most 256 for byte, less only for text of bytes below it. Unit:
    tokens."""

    def __post_init__(self) -> None:
        if self.name == "byte" and self.vocab_size > 256:
            raise InputError(
                f"tokenizer.vocab_size={self.vocab_size}: the byte tokenizer has at most 256 tokens"
            )
        if self.name == "bpe" and self.vocab_size < 257:
            raise InputError(
                f"tokenizer.vocab_size={self.vocab_size}: bpe needs at least 257 (bytes, separator)"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedTokenizerConfig:
    """A pretrained tokenizer in the format of the `tokenizers` library."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["pretrained"]
    """The kind of tokenizer."""
    path: Annotated[str, Field(min_length=1)]
    """A tokenizer.json, its directory, or OWNER/NAME on the hub."""
    revision: str | None = None
    """Commit on the hub, 40 hex digits; required there."""
    separator: str | None = None
    """Special token that ends every document; null: the tokenizer's end-of-text token, if it has one."""
    vocab_size: Count | None = None
    """Vocabulary of the model, at least the tokenizer's; null: equal to it. Unit: tokens."""


AnyTokenizerConfig = Annotated[TokenizerConfig | PretrainedTokenizerConfig, Field(discriminator="name")]
"""The tokenizer."""
