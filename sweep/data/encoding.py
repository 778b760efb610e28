"""Resumable tokenisation of a corpus into a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from sweep.data.corpus import CorpusHash
from sweep.data.documents import Document, chunks, is_held_out
from sweep.data.manifest import STRICT, SplitManifest
from sweep.data.token_files import ArrayFile, TokenWriter, array_file, cut
from sweep.data.tokenizers.tokenizers import Tokenizer
from sweep.errors import DataError
from sweep.identity import canonical_json

ENCODE_BYTES = 2**20  # text per call of the tokenizer: keeps memory bounded and all cores busy

CHECKPOINT_BYTES = 2**24  # text between two checkpoints: a few seconds of work

CHECKPOINT = "checkpoint.json"
ENDS = "heldout-document-ends.bin"

Report = Callable[[int], None]
"""Callback with the number of bytes of text encoded so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """Documents, tokens and bytes written to one split."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_documents: int = 0
    n_tokens: int = 0  # separators included
    n_bytes: int = 0

    def plus(self, document: Document, n_tokens: int) -> SplitCounts:
        """Return the counts after one more document."""
        return SplitCounts(
            n_documents=self.n_documents + 1,
            n_tokens=self.n_tokens + n_tokens,
            n_bytes=self.n_bytes + len(document.content),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Progress that is safely on the disk in the checkpoint's directory."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    max_shard_tokens: int
    tokenizer_file_sha256: str
    documents_so_far: str  # hash of the encoded documents: `CorpusHash.so_far`
    train: SplitCounts
    heldout: SplitCounts

    @property
    def n_documents(self) -> int:
        """Documents encoded so far."""
        return self.train.n_documents + self.heldout.n_documents


class Encoder:
    """Writes both splits of a corpus into a directory, one document after the other."""

    def __init__(
        self, directory: Path, tokenizer: Tokenizer, holdout_frac: float, max_shard_tokens: int
    ) -> None:
        """Resume from the directory's checkpoint; start from the beginning without a valid one."""
        self._directory = directory
        self._tokenizer = tokenizer
        self._holdout_frac = holdout_frac
        self._max_shard_tokens = max_shard_tokens
        self.corpus_hash = CorpusHash(holdout_frac)
        checkpoint = self._read_checkpoint()
        try:
            self._open(checkpoint)
        except ValueError:  # files are shorter than the checkpoint says: the disk lost synced data
            self._open(None)

    def encode(self, documents: Iterable[Document], report: Report) -> None:
        """Encode all documents of a corpus; those covered by the checkpoint are only hashed.

        Raises:
            DataError: A document cannot be encoded, or documents covered by the checkpoint have changed.
        """
        n_done, n_bytes_saved = self._n_done, 0
        for chunk in chunks(documents, ENCODE_BYTES):
            fresh = chunk[max(0, n_done - self.corpus_hash.n_documents) :]
            for found in chunk[: len(chunk) - len(fresh)]:
                self._skip(found)
            for found, ids in zip(fresh, self._tokenizer.encode(fresh) if fresh else [], strict=True):
                self._add(found, ids)
            report(self.corpus_hash.n_bytes)
            n_bytes_saved += sum(len(found.content) for found in fresh)
            if n_bytes_saved >= CHECKPOINT_BYTES:
                self._save_checkpoint()
                n_bytes_saved = 0
        if self.corpus_hash.n_documents < n_done:
            raise corpus_changed()

    def finish(self) -> tuple[SplitManifest, SplitManifest, ArrayFile]:
        """Sync all files; return the training split, the held-out split and its document ends."""
        self._save_checkpoint()
        train, heldout = (
            SplitManifest(**asdict(counts), shards=writer.finish())
            for counts, writer in ((self._train, self._writers[0]), (self._heldout, self._writers[1]))
        )
        return train, heldout, array_file(self._directory / ENDS, "int64")

    def forget_checkpoint(self) -> None:
        """Delete the checkpoint, so that only data files remain."""
        for name in (CHECKPOINT, f".{CHECKPOINT}"):
            (self._directory / name).unlink(missing_ok=True)

    def _open(self, checkpoint: Checkpoint | None) -> None:
        self._train = SplitCounts() if checkpoint is None else checkpoint.train
        self._heldout = SplitCounts() if checkpoint is None else checkpoint.heldout
        self._n_done = 0 if checkpoint is None else checkpoint.n_documents
        self._done = None if checkpoint is None else checkpoint.documents_so_far
        self._ends: list[int] = []
        (self._directory / ENDS).open("ab").close()
        cut(self._directory / ENDS, 8 * self._heldout.n_documents)
        self._writers = tuple(
            TokenWriter(
                self._directory, split, self._tokenizer.vocab_size, self._max_shard_tokens, counts.n_tokens
            )
            for split, counts in (("train", self._train), ("heldout", self._heldout))
        )

    def _skip(self, document: Document) -> None:
        self.corpus_hash.add(document)
        if self.corpus_hash.n_documents == self._n_done and self.corpus_hash.so_far != self._done:
            raise corpus_changed()

    def _add(self, document: Document, ids: NDArray[np.int64]) -> None:
        ids = np.append(ids, self._tokenizer.separator)
        n_bytes = int(self._tokenizer.token_bytes[ids].sum())
        if n_bytes != len(document.content):  # bits per byte would be wrong
            raise DataError(
                f"{document.name}: its tokens represent {n_bytes} bytes, but it has {len(document.content)}: "
                f"the tokenizer is not lossless, choose another"
            )
        self.corpus_hash.add(document)
        if is_held_out(document, self._holdout_frac):
            self._writers[1].append(ids, document.name)
            self._heldout = self._heldout.plus(document, len(ids))
            self._ends.append(self._heldout.n_tokens)
        else:
            self._writers[0].append(ids, document.name)
            self._train = self._train.plus(document, len(ids))

    def _sync(self) -> None:
        for writer in self._writers:
            writer.sync()
        with (self._directory / ENDS).open("ab") as stream:
            stream.write(np.array(self._ends, dtype="<i8").tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        self._ends = []

    def _save_checkpoint(self) -> None:
        self._sync()
        checkpoint = Checkpoint(
            max_shard_tokens=self._max_shard_tokens,
            tokenizer_file_sha256=self._tokenizer.sha256,
            documents_so_far=self.corpus_hash.so_far,
            train=self._train,
            heldout=self._heldout,
        )
        temporary = self._directory / f".{CHECKPOINT}"
        temporary.write_text(canonical_json(asdict(checkpoint)))
        temporary.replace(self._directory / CHECKPOINT)

    def _read_checkpoint(self) -> Checkpoint | None:
        with suppress(OSError, ValueError):
            values = json.loads((self._directory / CHECKPOINT).read_bytes())
            checkpoint = TypeAdapter(Checkpoint).validate_python(values)
            expected = self._max_shard_tokens, self._tokenizer.sha256
            if (checkpoint.max_shard_tokens, checkpoint.tokenizer_file_sha256) == expected:
                return checkpoint
        return None


def corpus_changed() -> DataError:
    """Return the error for a corpus that changed during its preparation."""
    return DataError(
        "the corpus changed while it was prepared: repeat the command to prepare its current text"
    )
