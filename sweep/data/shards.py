"""Prepared data sets: a corpus tokenised once into shards with a manifest, used by all runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.config import AnyTokenizerConfig, DataConfig, MixtureData, PartConfig
from sweep.data.corpus import Corpus, CorpusHash, check_split, corpus_of
from sweep.data.difficulty import Difficulty, measure_difficulty, read_difficulty, write_difficulty
from sweep.data.documents import Document, is_held_out
from sweep.data.encoding import Encoder, PartCounts
from sweep.data.manifest import FORMAT_VERSION, Manifest, PartManifest, SplitManifest, parse_manifest
from sweep.data.mixing import Part, corpus_changed
from sweep.data.registry import as_set, parts_of, scan, scan_parts, source_of
from sweep.data.registry import documents as documents_of
from sweep.data.sources.source import unreadable
from sweep.data.staging import atomic_directory
from sweep.data.token_files import Tokens, open_array, verify_array, write_array, write_durably
from sweep.data.tokenizers.tokenizers import build_tokenizer, tokenizer_sha256
from sweep.errors import DataError, InputError
from sweep.identity import canonical_json, sha256_json

MAX_SHARD_TOKENS = 2**27  # 256 MiB of uint16: few files, each easily copied

REPORT_BYTES = 2**20  # between two progress reports on the tokenizer's training

Progress = Callable[[str, int, int], None]
"""Callback with (stage, bytes done, total bytes) while data is prepared; the total is 0 if unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """The held-out split, with document ends and token sizes in bytes for scoring."""

    tokens: Tokens
    document_ends: NDArray[np.int64]  # (n_documents,): index after each document's separator
    token_bytes: NDArray[np.int64]  # (vocab_size,): bytes that each id represents (`Tokenizer`)
    difficulty: Difficulty | None  # None: not measured
    corpus_sha256: str
    tokenizer_file_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedData:
    """A corpus ready to train on; its tokens are memory-mapped."""

    directory: Path
    manifest: Manifest
    train: Tokens
    heldout: HeldOut

    def verify(self) -> None:
        """Check the SHA-256 of every file. Raises DataError for the first that differs from its manifest."""
        for array in self.manifest.files:
            verify_array(self.directory, array)


# --- reading -----------------------------------------------------------------------------------------


def prepared_directory(data_dir: Path, corpus_sha256: str, tokenizer_sha256: str) -> Path:
    """Return the directory of a corpus and tokenizer; it need not exist."""
    identity = {
        "format_version": FORMAT_VERSION,
        "corpus_sha256": corpus_sha256,
        "tokenizer_sha256": tokenizer_sha256,
    }
    return data_dir / "prepared" / sha256_json(identity)[:16]


def find_manifest(data_dir: Path, corpus_sha256: str, tokenizer_sha256: str) -> Manifest | None:
    """Return the manifest of prepared data, or None if it is not prepared.

    Raises:
        DataError: The manifest is of another format version or corpus, or damaged, or unreadable.
    """
    path = prepared_directory(data_dir, corpus_sha256, tokenizer_sha256) / "manifest.json"
    try:
        manifest = parse_manifest(path, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    for key, wanted in (("corpus_sha256", corpus_sha256), ("tokenizer_sha256", tokenizer_sha256)):
        if getattr(manifest, key) != wanted:
            raise DataError(
                f"{path} has {key} {getattr(manifest, key)[:16]}… where {wanted[:16]}… is expected: "
                f"delete {path.parent} and prepare the data again"
            )
    return manifest


def open_prepared(data_dir: Path, corpus_sha256: str, tokenizer_sha256: str) -> PreparedData:
    """Open prepared data. Checks file sizes, but not contents (see `PreparedData.verify`).

    Raises:
        DataError: It is not prepared, of another format version, or a file is missing or truncated.
    """
    directory = prepared_directory(data_dir, corpus_sha256, tokenizer_sha256)
    manifest = find_manifest(data_dir, corpus_sha256, tokenizer_sha256)
    if manifest is None:
        raise DataError(
            f"{directory} not found: the data is not prepared in data_dir={data_dir}, "
            f"run `sweep data prepare` or check that the directory is mounted on this machine"
        )
    return PreparedData(
        directory=directory,
        manifest=manifest,
        train=_open_tokens(directory, manifest.train),
        heldout=HeldOut(
            tokens=_open_tokens(directory, manifest.heldout),
            document_ends=open_array(directory, manifest.heldout_document_ends),
            token_bytes=open_array(directory, manifest.token_bytes),
            difficulty=read_difficulty(directory, manifest.heldout.n_documents),
            corpus_sha256=manifest.corpus_sha256,
            tokenizer_file_sha256=manifest.tokenizer_file_sha256,
        ),
    )


def _open_tokens(directory: Path, split: SplitManifest) -> Tokens:
    return Tokens([open_array(directory, shard) for shard in split.shards])


# --- preparing ---------------------------------------------------------------------------------------


def prepare(
    data: DataConfig, tokenizer: AnyTokenizerConfig, data_dir: Path, *, on_progress: Progress | None = None
) -> PreparedData:
    """Tokenise a source into `data_dir`, or open it if already prepared; see `prepare_documents`.

    The source is read up to three times (to hash the corpus, to train a tokenizer, to encode), one document
    at a time.
    """
    source = source_of(data)
    return _prepare(
        lambda: documents_of(data, source),
        corpus=scan(data, data_dir, source),
        holdout_frac=data.holdout_frac,
        tokenizer=tokenizer,
        data_dir=data_dir,
        max_shard_tokens=MAX_SHARD_TOKENS,
        report=on_progress or _no_progress,
        mixture=None if not isinstance(data, MixtureData) else Mixture(data, data_dir),
    )


def prepare_set(
    data: PartConfig,
    main: DataConfig,
    tokenizer: AnyTokenizerConfig,
    data_dir: Path,
    *,
    on_progress: Progress | None = None,
) -> PreparedData:
    """Tokenise an evaluation set into `data_dir` with the tokenizer of the corpus `main`.

    All of its documents are in the held-out split. Raises as `prepare_documents`.
    """
    everything = as_set(data)
    source, main_source = source_of(everything), source_of(main)
    return _prepare(
        lambda: documents_of(everything, source),
        corpus=scan(everything, data_dir, source),
        holdout_frac=everything.holdout_frac,
        tokenizer=tokenizer,
        data_dir=data_dir,
        max_shard_tokens=MAX_SHARD_TOKENS,
        report=on_progress or _no_progress,
        trained_on=TrainedOn(
            corpus=scan(main, data_dir, main_source),
            read=lambda: documents_of(main, main_source),
            holdout_frac=main.holdout_frac,
        ),
    )


def prepare_documents(
    documents: Sequence[Document],
    *,
    name: str,
    holdout_frac: float,
    tokenizer: AnyTokenizerConfig,
    data_dir: Path,
    max_shard_tokens: int = MAX_SHARD_TOKENS,
    on_progress: Progress | None = None,
) -> PreparedData:
    """Tokenise distinct documents into `data_dir`, or open them if already prepared.

    The directory is complete when it appears, by one rename. Two processes may prepare the same data at once:
    the files of one are kept, and both get the same data. The next process resumes the work of one that was
    stopped.

    Raises:
        DataError: A split is empty, a text cannot be encoded, or existing prepared data is damaged.
        DataInterrupted: The disk is full or cannot be written; finished work is kept.
        InputError: A library the tokenizer needs is not installed, or `data_dir` cannot be written.
    """
    return _prepare(
        lambda: iter(documents),
        corpus=corpus_of(name, documents, holdout_frac),
        holdout_frac=holdout_frac,
        tokenizer=tokenizer,
        data_dir=data_dir,
        max_shard_tokens=max_shard_tokens,
        report=on_progress or _no_progress,
    )


class Mixture:
    """The parts of a mixture, hashed while they are read, so that every document is accounted for."""

    def __init__(self, config: MixtureData, data_dir: Path) -> None:
        self._config = config
        self._corpora = scan_parts(config, data_dir)
        self._hashes = {name: CorpusHash(config.holdout_frac) for name in self._corpora}
        self._streams: dict[str, Iterator[Document]] = {}

    def parts(self) -> list[Part]:
        """Return the parts in the order of their names."""
        return [
            Part(name=name, weight=self._config.weights[name], read=partial(self._read, name))
            for name in self._corpora
        ]

    def manifests(self, counts: Sequence[PartCounts]) -> tuple[PartManifest, ...]:
        """Read what is left of each part, and return what was used and left.

        Raises DataError when a part is not the corpus that was scanned any more.
        """
        return tuple(self._manifest(name, found) for name, found in zip(self._corpora, counts, strict=True))

    def _read(self, name: str) -> Iterator[Document]:
        self._streams[name] = self._hashed(name)
        return self._streams[name]

    def _hashed(self, name: str) -> Iterator[Document]:
        self._hashes[name] = CorpusHash(self._config.holdout_frac)
        for document in documents_of(parts_of(self._config)[name]):
            self._hashes[name].add(document)
            yield document

    def _manifest(self, name: str, counts: PartCounts) -> PartManifest:
        for _ in self._streams[name]:
            pass
        there, scanned = self._hashes[name], self._corpora[name]
        if scanned.n_documents is not None and there.corpus(scanned.name).sha256 != scanned.sha256:
            raise corpus_changed()
        both = counts.train + counts.heldout
        return PartManifest(
            name=name,
            weight=self._config.weights[name],
            n_documents=both.n_documents,
            n_documents_held_out=counts.heldout.n_documents,
            n_tokens=both.n_tokens,
            n_tokens_held_out=counts.heldout.n_tokens,
            n_bytes=both.n_bytes,
            n_documents_left=there.n_documents - both.n_documents,
            n_bytes_left=there.n_bytes - both.n_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedOn:
    """The corpus on whose training split a tokenizer is trained."""

    corpus: Corpus
    read: Callable[[], Iterator[Document]]
    holdout_frac: float

    def documents(self) -> Iterator[Document]:
        """Yield the documents of the training split."""
        return (found for found in self.read() if not is_held_out(found, self.holdout_frac))


def _prepare(
    read: Callable[[], Iterator[Document]],
    *,
    corpus: Corpus,
    holdout_frac: float,
    tokenizer: AnyTokenizerConfig,
    data_dir: Path,
    max_shard_tokens: int,
    report: Progress,
    trained_on: TrainedOn | None = None,
    mixture: Mixture | None = None,
) -> PreparedData:
    """Tokenise documents; a tokenizer that has to be trained is trained on them, or on `trained_on`."""
    trained_on = trained_on or TrainedOn(corpus=corpus, read=read, holdout_frac=holdout_frac)
    recipe_sha256 = tokenizer_sha256(tokenizer, trained_on.corpus.sha256)
    if find_manifest(data_dir, corpus.sha256, recipe_sha256) is None:
        check_split(corpus, holdout_frac)
        _check_writable(data_dir)
        n_bytes = corpus.n_bytes or 0
        training = _with_progress(
            trained_on.documents(),
            lambda done: report("train the tokenizer", done, trained_on.corpus.n_bytes or 0),
        )
        built = build_tokenizer(tokenizer, trained_on.corpus.sha256, training, data_dir)
        with atomic_directory(prepared_directory(data_dir, corpus.sha256, recipe_sha256)) as directory:
            parts = mixture.parts() if mixture else [Part(name=corpus.name, weight=1.0, read=read)]
            encoder = Encoder(directory, built, holdout_frac, max_shard_tokens, len(parts))
            encoder.encode(parts, lambda done: report("tokenise", done, n_bytes))
            _check_unchanged(encoder.corpus_hash.corpus(corpus.name), corpus, holdout_frac)
            train, heldout, ends = encoder.finish()
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                corpus=corpus.name,
                corpus_sha256=corpus.sha256,
                tokenizer=tokenizer.name,
                tokenizer_sha256=recipe_sha256,
                tokenizer_file_sha256=built.sha256,
                vocab_size=built.vocab_size,
                separator=built.separator,
                train=train,
                heldout=heldout,
                token_bytes=write_array(directory, "token-bytes.bin", built.token_bytes, "int64"),
                heldout_document_ends=ends,
                parts=mixture.manifests(encoder.parts) if mixture else (),
            )
            write_durably(directory / "manifest.json", (canonical_json(_plain(manifest)) + "\n").encode())
            encoder.forget_checkpoint()
    return _with_difficulty(data_dir, open_prepared(data_dir, corpus.sha256, recipe_sha256))


def _plain(manifest: Manifest) -> dict[str, Any]:
    """Return the content of manifest.json, which lists parts only for a mixture."""
    values = asdict(manifest)
    if not manifest.parts:
        del values["parts"]
    return values


def _with_difficulty(data_dir: Path, prepared: PreparedData) -> PreparedData:
    """Measure the difficulty of the held-out documents where it is missing and the directory is writable."""
    manifest, heldout = prepared.manifest, prepared.heldout
    if heldout.difficulty is not None or len(prepared.train) < 2:
        return prepared
    difficulty = measure_difficulty(
        prepared.train,
        heldout.tokens,
        heldout.document_ends,
        vocab_size=manifest.vocab_size,
        separator=manifest.separator,
    )
    with suppress(OSError):
        write_difficulty(prepared.directory, difficulty)
    return open_prepared(data_dir, manifest.corpus_sha256, manifest.tokenizer_sha256)


def _check_unchanged(encoded: Corpus, corpus: Corpus, holdout_frac: float) -> None:
    """Raise DataError when the encoded text differs from the scanned corpus or leaves a split empty."""
    check_split(encoded, holdout_frac)
    if corpus.n_documents is not None and encoded.sha256 != corpus.sha256:
        raise corpus_changed()


def _with_progress(documents: Iterable[Document], report: Callable[[int], None]) -> Iterator[Document]:
    """Yield the documents; report the number of bytes read at intervals of `REPORT_BYTES`."""
    n_bytes = n_reported = 0
    for found in documents:
        n_bytes += len(found.content)
        if n_bytes >= n_reported + REPORT_BYTES:
            n_reported = n_bytes
            report(n_bytes)
        yield found


def _check_writable(data_dir: Path) -> None:
    try:
        (data_dir / "prepared").mkdir(parents=True, exist_ok=True, mode=0o700)  # corpora may be private
        tempfile.TemporaryFile(dir=data_dir / "prepared").close()
    except OSError as error:
        raise InputError(
            f"data_dir={data_dir} cannot be written ({error.strerror}): choose another with data_dir=DIR"
        ) from None


def _no_progress(stage: str, n_bytes_done: int, n_bytes: int) -> None:
    """Progress callback that does nothing."""
