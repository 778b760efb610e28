"""Peak memory of one shape in bytes: `python -m tests.plan.memory_probe DATA_DIR JSON`.

JSON holds `model` (changes to MODEL), `batch_size`, and optionally `micro_batch_size`, `precision`,
`evaluation_tokens` and `measure_noise_scale`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.config import EvaluationConfig, RunConfig, RunSchedule
from sweep.data.manifest import Manifest
from sweep.train.loop import train
from tests.configs import TINY, tiny_run
from tests.train.corpus import prepared_corpus
from tests.train.sessions import Session, placement

MODEL = replace(TINY, n_heads=4, n_kv_heads=4, vocab_size=256, seq_len=128, rope_base=10_000.0)
N_STEPS = 3  # the optimizer's state exists from the second step on


def probe_run(manifest: Manifest, case: dict[str, Any]) -> RunConfig:
    """Return the run that `case` describes."""
    model = replace(MODEL, **case["model"])
    tokens = case["batch_size"] * model.seq_len
    return tiny_run(
        model=model,
        corpus_sha256=manifest.corpus_sha256,
        tokenizer_sha256=manifest.tokenizer_sha256,
        batch_tokens=tokens,
        n_tokens=N_STEPS * tokens,
        schedule=RunSchedule(name="cosine", warmup_steps=1, decay_steps=0, final_lr_frac=0.0),
        evaluation=EvaluationConfig(n_tokens=case.get("evaluation_tokens", 16384)),
        optimizer=replace(tiny_run().optimizer, lr_peak=1e-5),  # a diverged run is not scored
        precision=case.get("precision", "fp32"),
    )


def main() -> None:
    corpus = prepared_corpus(Path(sys.argv[1]))
    case = json.loads(sys.argv[2])
    run = probe_run(corpus.manifest, case)
    with tempfile.TemporaryDirectory() as checkpoints:
        where = placement(
            corpus,
            micro_batch_size=case.get("micro_batch_size"),
            measure_noise_scale=case.get("measure_noise_scale", False),
        )
        result = train(run, where, Session(Path(checkpoints)))
    print(result.peak_memory_bytes)


if __name__ == "__main__":
    main()
