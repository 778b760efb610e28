"""Fixtures: the generated corpus, and a function that prepares it."""

from pathlib import Path

import pytest

from sweep.data.documents import Document
from sweep.data.shards import PreparedData, prepare_documents
from tests.data.corpora import BYTE, HOLDOUT_FRAC, Prepare, generated


@pytest.fixture(scope="session")
def texts() -> list[Document]:
    return generated(80)


@pytest.fixture
def prepare_texts(texts: list[Document], tmp_path: Path) -> Prepare:
    """Return a function that prepares the generated corpus in `tmp_path`; keywords override its settings."""

    def call(**overrides: object) -> PreparedData:
        settings = {"documents": texts, "name": "generated", "holdout_frac": HOLDOUT_FRAC, "tokenizer": BYTE}
        return prepare_documents(**{**settings, "data_dir": tmp_path, **overrides})  # type: ignore[arg-type]

    return call
