"""Where text comes from, and how it becomes tokens: one class for each source and kind of tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from sweep.config.values import STRICT, Count, NonNegativeCount, OpenFraction
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
    holdout_frac: OpenFraction  # of documents, chosen by the hash of their content


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonData:
    """All Python sources below some directories."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["python"]
    roots: Paths  # directories; none: the packages installed for the running Python
    holdout_frac: OpenFraction


@dataclass(frozen=True, kw_only=True, slots=True)
class TextData:
    """Text files in UTF-8."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["text"]
    files: Annotated[Paths, Field(min_length=1)]  # paths and globs; ** reaches into subdirectories
    delimiter: str | None  # what stands between two documents, \n for a line end; null: a file is a document
    holdout_frac: OpenFraction

    def __post_init__(self) -> None:
        if self.delimiter == "":
            raise InputError("data.delimiter is empty: give a text, or null to make each file a document")


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFaceData:
    """A data set of the Hugging Face hub, or a directory of Parquet or JSON Lines files."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["huggingface"]
    dataset: Annotated[str, Field(min_length=1)]  # a name on the hub, or a path
    revision: str | None  # on the hub: the commit, which never changes
    subset: str | None  # on the hub: one of several configurations, where there are some
    split: str | None  # null: train on the hub, every file of a directory
    column: str  # that holds the text
    streaming: bool  # read as it arrives, keeping no copy on disk; else download once
    n_documents: Count | None  # the first so many; null: all
    holdout_frac: OpenFraction


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticData:
    """Symbols drawn from a Markov chain whose entropy rate is known exactly."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["synthetic"]
    seed: NonNegativeCount
    n_symbols: Annotated[int, Field(ge=2, le=64)]
    n_documents: Count
    document_symbols: Annotated[int, Field(ge=16, le=2**20)]  # length of each
    holdout_frac: OpenFraction


DataConfig = Annotated[
    StdlibData | PythonData | TextData | HuggingFaceData | SyntheticData, Field(discriminator="source")
]
"""Where documents come from and how many are held out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """A tokenizer of our own: bytes, or byte-pair encoding learned from the training split."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["byte", "bpe"]
    vocab_size: Annotated[int, Field(ge=2, le=2**31)]  # byte: below 256 for text of bytes below it only

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
    """Somebody else's tokenizer, in the format of the `tokenizers` library."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["pretrained"]
    path: Annotated[str, Field(min_length=1)]  # a tokenizer.json, its directory, or a name on the hub
    revision: str | None  # on the hub: the commit, which never changes
    separator: str | None  # the special token that ends every document; null: the usual one, if it has one
    vocab_size: Count | None  # null: its own; larger pads the model's vocabulary


AnyTokenizerConfig = Annotated[TokenizerConfig | PretrainedTokenizerConfig, Field(discriminator="name")]
"""How text becomes token ids."""
