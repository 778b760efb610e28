"""Public reference data; tests that need it are skipped if it is absent."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.fit import from_dataframe
from sweep.records import Point


def reference_path(name: str) -> Path:
    default = Path(__file__).resolve().parents[2].parent / "shared" / "reference"
    path = Path(os.environ.get("SWEEP_REFERENCE_DATA", default)) / name
    if not path.exists():
        pytest.skip(f"reference data {name} is absent: set SWEEP_REFERENCE_DATA to its directory")
    return path


def chinchilla_frame(*, keep_outliers: bool) -> pd.DataFrame:
    """Points that Besiroglu et al. 2024 read off Hoffmann's figure 4; they leave out the five largest."""
    frame = pd.read_csv(reference_path("epoch_chinchilla/svg_extracted_data.csv"))
    frame = pd.DataFrame(
        {"n_params": frame["Model Size"], "flops": frame["Training FLOP"], "loss": frame["loss"]}
    )
    return frame if keep_outliers else frame[frame["loss"] < np.sort(frame["loss"])[-5]]


def chinchilla_points(*, keep_outliers: bool) -> tuple[Point, ...]:
    return from_dataframe(chinchilla_frame(keep_outliers=keep_outliers))


def gemstones_points() -> tuple[Point, ...]:
    frame = pd.read_json(reference_path("gemstones/wandb_df_for_fitting_hot.jsonl"), lines=True)
    columns = {"params_active_precise": "n_params", "tokens": "n_tokens", "final_loss": "loss"}
    return from_dataframe(frame.rename(columns=columns))
