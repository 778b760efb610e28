"""Held-out loss on fixed windows, with a standard error clustered by document."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweep.config import EVALUATION_BATCH_TOKENS, RunConfig
from sweep.data.batches import EvaluationWindows, evaluation_windows, set_windows
from sweep.data.shards import HeldOut, open_prepared
from sweep.errors import is_out_of_memory
from sweep.train.models.gpt import GPT


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Held-out score of a model."""

    loss: float  # nats per token
    loss_stderr: float | None  # clustered by document, by stratum if there are strata; None with one document
    bits_per_byte: float


def all_windows(run: RunConfig, data_dir: Path, heldout: HeldOut) -> list[EvaluationWindows]:
    """Return the windows of the held-out split and of each evaluation set.

    Raises DataError when the data of a set is missing or too short.
    """
    seq_len = run.model.seq_len
    found = [evaluation_windows(heldout, seq_len, run.evaluation)]
    for one in run.evaluation.sets:
        prepared = open_prepared(data_dir, one.corpus_sha256, run.tokenizer_sha256)
        found.append(set_windows(prepared.heldout, seq_len, run.evaluation))
    return found


def evaluate(model: GPT, windows: EvaluationWindows, *, on_batch: Callable[[], None]) -> Score:
    """Score every position of `windows` once; `on_batch` is called after each forward pass.

    bits per byte = total nats / (ln 2 · bytes of the scored tokens). On out of memory, fewer windows are
    scored at once, with the same losses up to rounding. If one does not fit, the allocator's error is raised.
    """
    device = next(model.parameters()).device
    rows = max(1, EVALUATION_BATCH_TOKENS // (windows.tokens.shape[1] - 1))
    losses: list[NDArray[np.float64]] = []
    done = 0
    while done < len(windows.tokens):
        batch = windows.tokens[done : done + rows]
        try:
            losses.append(_losses(model, torch.from_numpy(batch).to(device)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or rows == 1:
                raise
            rows = (rows + 1) // 2
            continue
        done += len(batch)
        on_batch()
    per_token = np.concatenate(losses)
    strata = None if windows.strata is None else windows.strata.reshape(-1)
    loss, stderr = clustered_mean(per_token, windows.documents.reshape(-1), strata)
    return Score(
        loss=loss,
        loss_stderr=stderr,
        bits_per_byte=float(per_token.sum()) / math.log(2) / windows.n_bytes,
    )


def _losses(model: GPT, tokens: Tensor) -> NDArray[np.float64]:
    """Return the loss of every position in nats: token ids, shape (B, T + 1), to (B·T,)."""
    with torch.no_grad():
        scored: NDArray[np.float64] = model.losses(tokens[:, :-1], tokens[:, 1:]).double().cpu().numpy()
    return scored


def clustered_mean(
    values: NDArray[np.float64], clusters: NDArray[np.int64], strata: NDArray[np.int64] | None = None
) -> tuple[float, float | None]:
    """Return the mean of `values`, shape (n,), and its cluster-robust standard error.

    With S_g the sum of residuals in cluster g of G: stderr = sqrt(G/(G-1) · sum_g S_g^2) / n, the
    Liang & Zeger (1986) sandwich estimator for a mean. With strata, residuals are from the stratum's mean and
    the terms of each stratum add up, each with its own G (Cochran 1977, §5A.3). A cluster belongs to one
    stratum. None where a stratum has a single cluster.
    """
    of_value = np.zeros_like(clusters) if strata is None else strata
    means = np.bincount(of_value, weights=values) / np.maximum(1, np.bincount(of_value))
    _, first, index = np.unique(clusters, return_index=True, return_inverse=True)
    residual_sums = np.bincount(index.reshape(-1), weights=values - means[of_value])
    of_cluster = of_value[first]
    n_clusters = np.bincount(of_cluster)[of_cluster]
    mean = float(values.mean())
    if (n_clusters < 2).any():
        return mean, None
    variance = float((n_clusters / (n_clusters - 1) * residual_sums**2).sum())
    return mean, math.sqrt(variance) / len(values)
