"""Training session without a worker that stops at a given step and keeps the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.config import EvaluationConfig, RunConfig
from sweep.data.shards import PreparedData
from sweep.records import Placement
from tests.configs import TINY, tiny_run


class Session:
    """Session that asks to stop after `stop_after` steps."""

    def __init__(self, directory: Path, stop_after: int | None = None) -> None:
        self.checkpoint_dir = directory
        self.stop_after = stop_after
        self.steps: list[int] = []
        self.records: list[Mapping[str, Any]] = []

    def should_stop(self) -> bool:
        return self.stop_after is not None and self.steps[-1] >= self.stop_after

    def progress(self, step: int) -> None:
        self.steps.append(step)

    def log(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)


def run_on(corpus: PreparedData, **changes: Any) -> RunConfig:
    manifest = corpus.manifest
    values: dict[str, Any] = {
        "model": replace(TINY, vocab_size=manifest.vocab_size, seq_len=32),
        "corpus": manifest.corpus,
        "corpus_sha256": manifest.corpus_sha256,
        "tokenizer": manifest.tokenizer,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "batch_tokens": 256,
        "n_tokens": 256 * 60,
        "evaluation": EvaluationConfig(n_tokens=4096),
    }
    return tiny_run(**(values | changes))


def placement(corpus: PreparedData, **changes: Any) -> Placement:
    values: dict[str, Any] = {
        "data_dir": corpus.directory.parents[1],
        "device": "cpu",
        "n_threads": 1,
        "micro_batch_size": None,
        "checkpoint_interval_s": 1e9,
    }
    return Placement(**(values | changes))
