"""Seeded synthetic corpus: sentences over a Zipf vocabulary, identical on every machine."""

from __future__ import annotations

import random
from pathlib import Path

from sweep.config import TokenizerConfig
from sweep.data.documents import document
from sweep.data.shards import PreparedData, prepare_documents


def generated_documents(n_documents: int = 60, n_words: int = 400, seed: int = 0):
    generator = random.Random(seed)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 7))) for _ in range(200)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    for index in range(n_documents):
        text = " ".join(generator.choices(words, weights, k=n_words))
        yield document(f"{index:03}.txt", text.encode())


def prepared_corpus(data_dir: Path) -> PreparedData:
    return prepare_documents(
        list(generated_documents()),
        name="generated",
        holdout_frac=0.2,
        tokenizer=TokenizerConfig(name="byte", vocab_size=256),
        data_dir=data_dir,
    )
