"""A small generated corpus, with enough repetition for BPE and enough documents for both splits."""

import random
from collections.abc import Callable

from sweep.config import TokenizerConfig
from sweep.data.documents import Document, document
from sweep.data.shards import PreparedData

HOLDOUT_FRAC = 0.2
BYTE = TokenizerConfig(name="byte", vocab_size=256)
BPE = TokenizerConfig(name="bpe", vocab_size=300)

Prepare = Callable[..., PreparedData]


def generated(n_documents: int, seed: int = 0) -> list[Document]:
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(1, 8))) for _ in range(80)] + [
        "größe",
        "→",
    ]
    texts = (" ".join(chance.choices(words, k=chance.randint(5, 60))) for _ in range(n_documents))
    return [document(f"text-{i}", text.encode()) for i, text in enumerate(texts)]
