"""Losses of the chains of `known_entropy` themselves on its held-out windows.

Usage: python -m scripts.evidence.floors [DATA_DIR]

DATA_DIR is the `data_dir` with which the sweep was run. Writes results/reference/known_entropy/floors.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from scripts.evidence.studies import STUDIES, arm_points
from sweep.config import SyntheticData
from sweep.config.compose import compose_experiments
from sweep.config.places import data_directory
from sweep.data.batches import evaluation_windows
from sweep.data.shards import open_prepared
from sweep.data.sources.synthetic import ALPHABET, optimal_losses

PATH = STUDIES["known_entropy"].directory / "floors.json"


def floors(data_dir: Path | None) -> dict[str, dict[str, float | str]]:
    """Return the mean loss of each chain on the windows of its runs, with the windows' hash."""
    points, found = arm_points(STUDIES["known_entropy"]), {}
    for chain in compose_experiments(["experiment=known_entropy"]):
        assert isinstance(chain.data, SyntheticData)
        point, _ = points[chain.arm][0]
        assert point.corpus_sha256 is not None
        assert point.tokenizer_sha256 is not None
        where = data_directory(chain) if data_dir is None else data_dir
        heldout = open_prepared(where, point.corpus_sha256, point.tokenizer_sha256).heldout
        windows = evaluation_windows(heldout, chain.model.seq_len, chain.evaluation)
        number = np.full(256, chain.data.n_symbols)
        number[list(ALPHABET[: chain.data.n_symbols])] = np.arange(chain.data.n_symbols)
        losses = optimal_losses(chain.data, number[windows.tokens])
        found[str(chain.arm)] = {"loss": float(losses.mean()), "evaluation_sha256": windows.sha256}
    return found


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    PATH.write_text(json.dumps(floors(given), indent=1) + "\n")
