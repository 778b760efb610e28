"""Resumable tokenisation of a corpus into a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from sweep.data.corpus import CorpusHash
from sweep.data.documents import Document, Dropped, is_held_out
from sweep.data.manifest import STRICT, SplitManifest
from sweep.data.mixing import Part, corpus_changed, in_turns
from sweep.data.token_files import ArrayFile, TokenWriter, array_file, cut, token_dtype
from sweep.data.tokenizers.tokenizers import Tokenizer
from sweep.errors import DataError
from sweep.identity import canonical_json

CHECKPOINT_BYTES = 2**24  # text between two checkpoints: a few seconds of work

CHECKPOINT = "checkpoint.json"
ENDS = "heldout-document-ends.bin"
ORDER = "order.bin"  # part of each document, a byte, while a mixture is prepared
REPORT_BYTES = 2**20  # between two reports

Report = Callable[[int], None]
"""Callback with the number of bytes of text encoded so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """Documents, tokens and bytes written to one split."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_documents: int = 0
    n_tokens: int = 0  # separators included
    n_bytes: int = 0

    def __add__(self, other: SplitCounts) -> SplitCounts:
        """Return the sums of both counts."""
        return SplitCounts(
            n_documents=self.n_documents + other.n_documents,
            n_tokens=self.n_tokens + other.n_tokens,
            n_bytes=self.n_bytes + other.n_bytes,
        )

    def plus(self, document: Document, n_tokens: int) -> SplitCounts:
        """Return the counts after one more document."""
        return SplitCounts(
            n_documents=self.n_documents + 1,
            n_tokens=self.n_tokens + n_tokens,
            n_bytes=self.n_bytes + len(document.content),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PartCounts:
    """Documents, tokens and bytes that one part of the corpus has in both splits."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    train: SplitCounts = SplitCounts()
    heldout: SplitCounts = SplitCounts()

    @property
    def n_tokens(self) -> int:
        """Tokens in both splits."""
        return self.train.n_tokens + self.heldout.n_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Progress that is safely on the disk in the checkpoint's directory."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    max_shard_tokens: int
    tokenizer_file_sha256: str
    documents_so_far: str  # hash of the encoded documents: `CorpusHash.so_far`
    parts: tuple[PartCounts, ...]  # of the corpus, one where it is no mixture


def encode_documents(tokenizer: Tokenizer, documents: Sequence[Document]) -> list[NDArray[Any]]:
    """Return the ids of each document and its separator, in the type of `token_dtype`.

    Raises:
        DataError: A document cannot be encoded, its tokens do not represent its bytes, or an id is outside
            the vocabulary.
    """
    separator = np.array([tokenizer.separator])
    encoded = tokenizer.encode(documents)
    ends = np.cumsum([len(ids) + 1 for ids in encoded])
    starts = np.array([0, *ends[:-1]])
    ids = np.concatenate([part for one in encoded for part in (one, separator)])
    if ids.min() < 0 or ids.max() >= tokenizer.vocab_size:
        for document, one in zip(documents, encoded, strict=True):
            _check_ids(document, one, tokenizer.vocab_size)
    n_bytes = np.add.reduceat(tokenizer.token_bytes[ids], starts)
    for document, size in zip(documents, n_bytes.tolist(), strict=True):
        if size != len(document.content):  # bits per byte would be wrong
            raise DataError(
                f"{document.name}: its tokens represent {size} bytes, but it has {len(document.content)}: "
                f"the tokenizer is not lossless, choose another"
            )
    ids = ids.astype(token_dtype(tokenizer.vocab_size))
    return [ids[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _check_ids(document: Document, ids: NDArray[np.int64], vocab_size: int) -> None:
    outside = (ids < 0) | (ids >= vocab_size)
    if outside.any():
        raise DataError(
            f"{document.name}: token id {ids[outside][0]} at position {int(outside.argmax())} is outside "
            f"the vocabulary 0..{vocab_size - 1}: the tokenizer does not match its vocab_size"
        )


class Encoder:
    """Writes both splits of a corpus into a directory, one document after the other."""

    def __init__(
        self,
        directory: Path,
        tokenizer: Tokenizer,
        holdout_frac: float,
        max_shard_tokens: int,
        n_parts: int = 1,
    ) -> None:
        """Resume from the directory's checkpoint; start from the beginning without a valid one."""
        self._directory = directory
        self._tokenizer = tokenizer
        self._holdout_frac = holdout_frac
        self._max_shard_tokens = max_shard_tokens
        self._n_parts = n_parts
        self.corpus_hash = CorpusHash(holdout_frac)
        checkpoint = self._read_checkpoint()
        try:
            self._open(checkpoint)
        except ValueError:  # files are shorter than the checkpoint says: the disk lost synced data
            self._open(None)

    @property
    def parts(self) -> tuple[PartCounts, ...]:
        """Counts of documents and tokens written, by part of the corpus."""
        return tuple(self._parts)

    def encode(self, parts: Sequence[Part], report: Report, dropped: Dropped | None = None) -> None:
        """Encode all documents of a corpus; those covered by the checkpoint are only hashed.

        `dropped` counts documents of a mixture that equal one of another part.

        Raises:
            DataError: A document cannot be encoded, or documents covered by the checkpoint have changed.
        """
        n_bytes_reported, n_bytes_saved = 0, 0
        n_tokens = [counts.n_tokens for counts in self._parts]
        encode = partial(encode_documents, self._tokenizer)
        turns = in_turns(parts, encode, self._order(), n_tokens, dropped or Dropped())
        with closing(turns):  # ends its threads
            for number, document, ids in turns:
                if ids is None:
                    self._skip(document)
                else:
                    self._add(number, document, ids)
                    n_bytes_saved += len(document.content)
                if self.corpus_hash.n_bytes - n_bytes_reported >= REPORT_BYTES:
                    n_bytes_reported = self.corpus_hash.n_bytes
                    report(n_bytes_reported)
                if n_bytes_saved >= CHECKPOINT_BYTES:
                    self._save_checkpoint()
                    n_bytes_saved = 0
        report(self.corpus_hash.n_bytes)

    def finish(self) -> tuple[SplitManifest, SplitManifest, ArrayFile]:
        """Sync all files; return the training split, the held-out split and its document ends."""
        self._save_checkpoint()
        train, heldout = (
            SplitManifest(**asdict(self._total(split)), shards=writer.finish())
            for split, writer in zip(("train", "heldout"), self._writers, strict=True)
        )
        return train, heldout, array_file(self._directory / ENDS, "int64")

    def forget_checkpoint(self) -> None:
        """Delete the checkpoint, so that only data files remain."""
        for name in (CHECKPOINT, f".{CHECKPOINT}", ORDER):
            (self._directory / name).unlink(missing_ok=True)

    def _total(self, split: str) -> SplitCounts:
        return sum((getattr(counts, split) for counts in self._parts), SplitCounts())

    def _open(self, checkpoint: Checkpoint | None) -> None:
        self._parts = [PartCounts()] * self._n_parts if checkpoint is None else list(checkpoint.parts)
        self._done = None if checkpoint is None else checkpoint.documents_so_far
        self._n_done = self._total("train").n_documents + self._total("heldout").n_documents
        self._n_heldout = self._total("heldout").n_tokens
        self._ends: list[int] = []
        self._numbers = bytearray()
        n_order = self._n_done if self._n_parts > 1 else 0
        for name, n_bytes in ((ENDS, 8 * self._total("heldout").n_documents), (ORDER, n_order)):
            (self._directory / name).open("ab").close()
            cut(self._directory / name, n_bytes)
        self._writers = tuple(
            TokenWriter(
                self._directory,
                split,
                self._tokenizer.vocab_size,
                self._max_shard_tokens,
                self._total(split).n_tokens,
            )
            for split in ("train", "heldout")
        )

    def _order(self) -> Iterator[int]:
        """Yield the part of each document that the checkpoint covers."""
        if self._n_parts == 1:
            return iter(repeat(0, self._n_done))
        return iter((self._directory / ORDER).read_bytes())

    def _skip(self, document: Document) -> None:
        self.corpus_hash.add(document)
        if self.corpus_hash.n_documents == self._n_done and self.corpus_hash.so_far != self._done:
            raise corpus_changed()

    def _add(self, number: int, document: Document, ids: NDArray[Any]) -> None:
        self.corpus_hash.add(document)
        self._numbers.append(number)
        counts = self._parts[number]
        if is_held_out(document, self._holdout_frac):
            self._writers[1].append(ids)
            heldout = counts.heldout.plus(document, len(ids))
            self._parts[number] = PartCounts(train=counts.train, heldout=heldout)
            self._n_heldout += len(ids)
            self._ends.append(self._n_heldout)
        else:
            self._writers[0].append(ids)
            train = counts.train.plus(document, len(ids))
            self._parts[number] = PartCounts(train=train, heldout=counts.heldout)

    def _sync(self) -> None:
        for writer in self._writers:
            writer.sync()
        ends = np.array(self._ends, dtype="<i8").tobytes()
        order = bytes(self._numbers) if self._n_parts > 1 else b""
        for name, data in ((ENDS, ends), (ORDER, order)):
            with (self._directory / name).open("ab") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        self._ends, self._numbers = [], bytearray()

    def _save_checkpoint(self) -> None:
        self._sync()
        checkpoint = Checkpoint(
            max_shard_tokens=self._max_shard_tokens,
            tokenizer_file_sha256=self._tokenizer.sha256,
            documents_so_far=self.corpus_hash.so_far,
            parts=self.parts,
        )
        temporary = self._directory / f".{CHECKPOINT}"
        temporary.write_text(canonical_json(asdict(checkpoint)))
        temporary.replace(self._directory / CHECKPOINT)

    def _read_checkpoint(self) -> Checkpoint | None:
        with suppress(OSError, ValueError):
            values = json.loads((self._directory / CHECKPOINT).read_bytes())
            checkpoint = TypeAdapter(Checkpoint).validate_python(values)
            expected = self._max_shard_tokens, self._tokenizer.sha256, self._n_parts
            found = checkpoint.max_shard_tokens, checkpoint.tokenizer_file_sha256, len(checkpoint.parts)
            if found == expected:
                return checkpoint
        return None
