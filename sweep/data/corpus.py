"""Content hash of a corpus, computed document by document and cached while its files are unchanged."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sweep.config import DataConfig, MixtureData, to_dict
from sweep.config.places import working_directory
from sweep.data.documents import (
    ALL_HELD_OUT,
    HOLDOUT_RULE,
    SPACE_MARK,
    Document,
    Dropped,
    distinct,
    is_held_out,
    place_of,
)
from sweep.data.sources.source import FileState, Source
from sweep.errors import DataError
from sweep.identity import canonical_json, sha256_json

SCAN_VERSION = 3
"""Increased when the same files would yield other documents; invalidates cached hashes."""

MIXTURE_VERSION = 1
"""Increased when the same parts and weights would give another order or choice of documents."""

MIN_CACHED_BYTES = 50_000_000  # smaller corpora are read and hashed again in a tenth of a second
MIN_FILE_AGE_S = 2.0
"""Corpora with more recently changed files are not cached: a second change might not alter the file times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Distinct documents in order, and their split into training and held-out text.

    Sizes are None for a corpus identified by its recipe, without reading it.
    """

    name: str
    n_copies: int = 0  # documents dropped because they equal an earlier one
    n_blank: int = 0  # rows or parts of files dropped because they have no text
    sha256: str  # of the documents' hashes in order, the held-out rule and holdout_frac
    n_documents: int | None
    n_bytes: int | None
    n_bytes_held_out: int | None
    n_documents_held_out: int | None
    nul: str | None = None  # first place of a byte 0, as `place_of` names it
    space_mark: str | None = None  # first place of SPACE_MARK
    largest_byte: int | None = None


class CorpusHash:
    """Incremental hash of a corpus over everything that determines its training and held-out text.

    The SHA-256 of the canonical JSON of {"documents": [their hashes], "holdout_frac", "holdout_rule"}.
    """

    def __init__(self, holdout_frac: float) -> None:
        self._holdout_frac = holdout_frac
        self._digest = hashlib.sha256(b'{"documents":[')
        self.n_documents = 0
        self.n_bytes = 0
        self.n_bytes_held_out = 0
        self.n_documents_held_out = 0

    def add(self, document: Document) -> None:
        """Add the next document."""
        self._digest.update(f'{"," if self.n_documents else ""}"{document.sha256}"'.encode())
        self.n_documents += 1
        self.n_bytes += len(document.content)
        if is_held_out(document, self._holdout_frac):
            self.n_bytes_held_out += len(document.content)
            self.n_documents_held_out += 1

    @property
    def so_far(self) -> str:
        """Hash of the documents added so far."""
        return self._digest.hexdigest()

    def corpus(self, name: str) -> Corpus:
        """Return the corpus of all documents added."""
        rest = canonical_json({"holdout_frac": self._holdout_frac, "holdout_rule": HOLDOUT_RULE})
        digest = self._digest.copy()
        digest.update(f"],{rest[1:]}".encode())
        return Corpus(
            name=name,
            sha256=digest.hexdigest(),
            n_documents=self.n_documents,
            n_bytes=self.n_bytes,
            n_bytes_held_out=self.n_bytes_held_out,
            n_documents_held_out=self.n_documents_held_out,
        )


def corpus_of(name: str, documents: Iterable[Document], holdout_frac: float) -> Corpus:
    """Return the corpus of distinct documents."""
    corpus_hash = CorpusHash(holdout_frac)
    nul = space_mark = None
    largest_byte = 0
    for document in documents:
        corpus_hash.add(document)
        nul = nul or place_of(document, b"\0")
        space_mark = space_mark or place_of(document, SPACE_MARK.encode())
        if document.content:
            largest_byte = max(largest_byte, int(np.frombuffer(document.content, np.uint8).max()))
    return replace(corpus_hash.corpus(name), nul=nul, space_mark=space_mark, largest_byte=largest_byte)


def check_split(corpus: Corpus, holdout_frac: float) -> None:
    """Raise DataError when a corpus, its training split or its held-out split is empty."""
    if corpus.n_bytes is None or corpus.n_bytes_held_out is None:
        return
    if not corpus.n_bytes:
        raise DataError(
            f"the corpus {corpus.name} is empty: no text found, choose other files or another corpus"
        )
    if holdout_frac == ALL_HELD_OUT:
        return
    copies = f" ({corpus.n_copies} copies were dropped)" if corpus.n_copies else ""
    for side, n_bytes, remedy in (
        ("train on", corpus.n_bytes - corpus.n_bytes_held_out, "lower"),
        ("hold out", corpus.n_bytes_held_out, "raise"),
    ):
        if not n_bytes:
            raise DataError(
                f"data.holdout_frac={holdout_frac} leaves no text to {side} in {corpus.n_documents} "
                f"documents{copies}: {remedy} it, or use a corpus with more documents"
            )


# --- scanning ----------------------------------------------------------------------------------------


def scan_source(source: Source, config: DataConfig, cache_dir: Path | None) -> Corpus:
    """Return the corpus of a source. Reads all of it, unless it has a recipe or is cached in `cache_dir`.

    Raises:
        DataError: The source cannot be read.
    """
    if source.recipe is not None:
        identity = {**source.recipe, "holdout_frac": config.holdout_frac, "holdout_rule": HOLDOUT_RULE}
        name, sha256 = source.name, sha256_json(identity)
        return Corpus(
            name=name,
            sha256=sha256,
            n_documents=None,
            n_bytes=None,
            n_bytes_held_out=None,
            n_documents_held_out=None,
        )
    if source.files is None or cache_dir is None:
        return _read(source, config)
    cache = _Cache(cache_dir, config, source.files())
    corpus = cache.find()
    if corpus is None:
        corpus = _read(source, config)
        cache.keep(corpus)
    return corpus


def _read(source: Source, config: DataConfig) -> Corpus:
    dropped = Dropped()
    documents = distinct(source.documents(dropped), dropped)
    corpus = corpus_of(source.name, documents, config.holdout_frac)
    return replace(corpus, n_copies=dropped.n_copies, n_blank=dropped.n_blank)


def check_documents(corpus: Corpus, remedy: str | None, holdout_frac: float) -> None:
    """Raise DataError for a corpus of a single document that is to be split; `remedy` is its source's."""
    if corpus.n_documents == 1 and corpus.n_bytes and holdout_frac != ALL_HELD_OUT:
        copies = f" after {corpus.n_copies} copies of it were dropped" if corpus.n_copies else ""
        raise DataError(
            f"the corpus {corpus.name} is a single document{copies}, and held-out text is chosen by "
            f"document: {remedy or 'use a corpus with more documents'}"
        )


def mixed(parts: Mapping[str, Corpus], config: MixtureData) -> Corpus:
    """Return the corpus of a mixture, identified by its parts and weights.

    Which documents it takes depends on their tokens, so its sizes are not known before it is prepared.
    """
    identity = {
        "mixture": MIXTURE_VERSION,
        "parts": {name: [corpus.sha256, config.weights[name]] for name, corpus in parts.items()},
        "holdout_frac": config.holdout_frac,
        "holdout_rule": HOLDOUT_RULE,
    }
    largest = [corpus.largest_byte for corpus in parts.values() if corpus.largest_byte is not None]
    return Corpus(
        name="mixture",
        sha256=sha256_json(identity),
        n_documents=None,
        n_bytes=None,
        n_bytes_held_out=None,
        n_documents_held_out=None,
        nul=next((corpus.nul for corpus in parts.values() if corpus.nul), None),
        space_mark=next((corpus.space_mark for corpus in parts.values() if corpus.space_mark), None),
        largest_byte=max(largest, default=None),
    )


class _Cache:
    """Cached corpus of one data config, valid for one state of its files.

    Errors of the cache count as a miss: the files are read again.
    """

    def __init__(self, cache_dir: Path, config: DataConfig, files: Iterable[FileState]) -> None:
        digest = hashlib.sha256()
        newest_ns = 0
        for file in files:
            state = (file.path, file.n_bytes, file.mtime_ns, file.ctime_ns)
            digest.update(repr(state).encode("utf-8", "surrogateescape"))
            newest_ns = max(newest_ns, file.mtime_ns, file.ctime_ns)
        self._state = digest.hexdigest()
        directory = str(working_directory())  # relative paths in the config mean other files elsewhere
        self._is_settled = newest_ns / 1e9 < time.time() - MIN_FILE_AGE_S
        identity = {"scan_version": SCAN_VERSION, "directory": directory, "data": to_dict(config)}
        self._path = cache_dir / f"{sha256_json(identity)[:16]}.json"

    def find(self) -> Corpus | None:
        """Return the corpus cached for this state of the files, or None."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            values = json.loads(self._path.read_bytes())
            if values["files"] == self._state:
                return Corpus(**values["corpus"])
        return None

    def keep(self, corpus: Corpus) -> None:
        """Cache the corpus of these files, if it is large and old enough."""
        if not self._is_settled or (corpus.n_bytes or 0) < MIN_CACHED_BYTES:
            return
        temporary = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(canonical_json({"files": self._state, "corpus": asdict(corpus)}))
            temporary.replace(self._path)
