"""Training batches as a function of the step, and the fixed held-out windows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.config import EvaluationWindowsConfig
from sweep.data.permutation import epoch_order
from sweep.data.shards import HeldOut
from sweep.data.strata import select_stratified
from sweep.data.token_files import Tokens
from sweep.errors import DataError
from sweep.identity import sha256_json

ORDER_BLOCK = 4096
"""Windows per block of the computed order, so that the permutation costs less than reading the batch."""


class TrainBatches:
    """The training batches of one run: a pure function of (seed, step), without state to save.

    The tokens are split into windows of seq_len + 1 at stride seq_len: each token is a target once per epoch,
    except for fewer than seq_len at the end. Each epoch has its own order, and a batch may span two epochs:
    batch `step` takes positions step·batch_size … (step + 1)·batch_size - 1 of `epoch_order`.
    """

    def __init__(self, tokens: Tokens, seq_len: int, batch_size: int, seed: int) -> None:
        """Raise DataError when there are fewer tokens than one batch needs."""
        self.n_windows = (len(tokens) - 1) // seq_len
        if self.n_windows < batch_size:
            raise DataError(
                f"the training split has {len(tokens)} tokens, one batch needs {batch_size * seq_len + 1} "
                f"({batch_size} windows of seq_len={seq_len}, and one more target): "
                f"lower the batch or seq_len, or use a larger corpus"
            )
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self._tokens = tokens
        self._steps_per_block = max(1, ORDER_BLOCK // batch_size)
        self._block: tuple[int, NDArray[np.int64]] = (-1, np.empty((0, batch_size), np.int64))

    def at(self, step: int) -> NDArray[np.int64]:
        """Return the batch of a step, counted from 0.

        Shape (batch_size, seq_len + 1): inputs [:, :-1], targets [:, 1:].
        """
        return self.rows(step, 0, self.batch_size)

    def rows(self, step: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return rows start..stop-1 of the batch of a step, shape (stop - start, seq_len + 1)."""
        return self._tokens.windows(self._starts(step)[start:stop], self.seq_len + 1)

    def n_tokens_unique(self, n_steps: int) -> int:
        """Return the number of distinct target positions in `n_steps` steps."""
        return min(n_steps * self.batch_size, self.n_windows) * self.seq_len

    def _starts(self, step: int) -> NDArray[np.int64]:
        """Return the first tokens of a step's windows, shape (batch_size,). The current block is cached."""
        number, row = divmod(step, self._steps_per_block)
        block_number, starts = self._block
        if block_number != number:
            size = self._steps_per_block * self.batch_size
            order = epoch_order(number * size, (number + 1) * size, self.n_windows, self.seed)
            starts = order.reshape(-1, self.batch_size) * self.seq_len
            self._block = (number, starts)
        found: NDArray[np.int64] = starts[row]
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationWindows:
    """The held-out windows on which every run of one sequence length is scored."""

    tokens: NDArray[np.int64]  # (n, seq_len + 1): inputs [:, :-1], targets [:, 1:]
    documents: NDArray[np.int64]  # (n, seq_len): index of each target's held-out document
    strata: NDArray[np.int64] | None  # (n, seq_len): stratum of each target; None: not stratified
    n_bytes: int  # of text in all targets, exact; bits per byte = nats / ln 2 / n_bytes
    sha256: str  # of the windows, corpus and tokenizer

    @property
    def n_tokens(self) -> int:
        """Number of scored positions."""
        return self.documents.size


def check_held_out(n_tokens: int, seq_len: int, n_held_out: int, *, is_bound: bool = False) -> None:
    """Raise DataError unless whole windows that score `n_tokens` fit into `n_held_out` tokens.

    With `is_bound` there are at most `n_held_out` tokens.
    """
    n_needed = -(-n_tokens // seq_len) * seq_len + 1
    if n_needed > n_held_out:
        raise DataError(
            f"evaluation.n_tokens={n_tokens:,} is too large: it needs {n_needed:,} tokens at "
            f"seq_len={seq_len}, and the held-out text has {'at most ' if is_bound else ''}{n_held_out:,}: "
            f"lower it, or raise data.holdout_frac"
        )


def evaluation_windows(heldout: HeldOut, seq_len: int, config: EvaluationWindowsConfig) -> EvaluationWindows:
    """Return the fewest whole windows that score `config.n_tokens` positions of the held-out split.

    Windows share no target. With `selection="stratified"` they represent the training text
    (`sweep.data.strata`), and a window's targets belong to the document of the first. With "even" they are
    spread evenly over the split, and documents count in proportion to their length. They depend only on the
    prepared data, `seq_len` and `config`.

    Raises:
        DataError: The held-out split has too few tokens, or its difficulty has not been measured.
    """
    n_windows = -(-config.n_tokens // seq_len)
    check_held_out(config.n_tokens, seq_len, len(heldout.tokens))
    n_spare = len(heldout.tokens) - 1 - n_windows * seq_len
    if config.selection == "stratified":
        return _stratified(heldout, seq_len, n_windows)
    gaps = np.arange(n_windows, dtype=np.int64) * n_spare // max(1, n_windows - 1)
    starts = np.arange(n_windows, dtype=np.int64) * seq_len + gaps
    positions = starts[:, None] + np.arange(1, seq_len + 1)
    documents = np.searchsorted(heldout.document_ends, positions, side="right").astype(np.int64)
    return _windows(heldout, seq_len, starts, documents, None)


def set_windows(heldout: HeldOut, seq_len: int, config: EvaluationWindowsConfig) -> EvaluationWindows:
    """Return the windows of an evaluation set: at most those of `config.n_tokens`, spread evenly over it.

    Raises DataError when the set is shorter than one window.
    """
    n_windows = (len(heldout.tokens) - 1) // seq_len
    if n_windows < 1:
        raise DataError(
            f"an evaluation set has {len(heldout.tokens)} tokens, one window needs {seq_len + 1} at seq_len="
            f"{seq_len}: give it more text"
        )
    n_tokens = min(config.n_tokens, n_windows * seq_len)
    return evaluation_windows(heldout, seq_len, EvaluationWindowsConfig(n_tokens=n_tokens, selection="even"))


def _stratified(heldout: HeldOut, seq_len: int, n_windows: int) -> EvaluationWindows:
    if heldout.difficulty is None:
        raise DataError(
            "the data was prepared without the difficulty of its held-out documents, which evaluation."
            "selection=stratified needs: run sweep data prepare with write access to data_dir"
        )
    selected = select_stratified(
        heldout.difficulty, heldout.document_ends, len(heldout.tokens), seq_len, n_windows
    )
    documents, strata = (
        np.repeat(of_window[:, None], seq_len, axis=1) for of_window in (selected.documents, selected.strata)
    )
    return _windows(heldout, seq_len, selected.starts, documents, strata)


def _windows(
    heldout: HeldOut,
    seq_len: int,
    starts: NDArray[np.int64],
    documents: NDArray[np.int64],
    strata: NDArray[np.int64] | None,
) -> EvaluationWindows:
    tokens = heldout.tokens.windows(starts, seq_len + 1)
    identity = {
        "corpus_sha256": heldout.corpus_sha256,
        "tokenizer_sha256": heldout.tokenizer_file_sha256,
        "seq_len": seq_len,
        "starts": hashlib.sha256(starts.astype("<i8").tobytes()).hexdigest(),
        "tokens": hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest(),
    }
    return EvaluationWindows(
        tokens=tokens,
        documents=documents,
        strata=strata,
        n_bytes=int(heldout.token_bytes[tokens[:, 1:]].sum()),
        sha256=sha256_json(identity),
    )
