"""Laws of learning rate and batch on the public table of Step Law (Li et al. 2025), fetched for the test.

The tests are skipped where it cannot be fetched. A directory steplaw in SWEEP_REFERENCE_DATA is used instead.
"""

import hashlib
import os
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.config import ColumnsConfig
from sweep.study.hparam_laws import fit_table_hparams

pytestmark = pytest.mark.ci
SOURCE = "https://raw.githubusercontent.com/step-law/steplaw/32a8f4cc50247695fb56cc6c9117abdf67c97763/data/"
RUNS, RESAMPLES = "dense_lr_bs_loss.csv", "1004_fitted_lr_bs_scaling_model_parameters.csv"
SHA256 = {
    RUNS: "9e46181076c04d450294d75dfe6f72adc416e231e154a07b337e378f9410002c",
    RESAMPLES: "2252afbba5530e6ba6167e8101bd2b9082a018a58cb5922cc8672891a7f4336c",
}
COLUMNS = ColumnsConfig(n_params="N", n_tokens="D", loss="smooth loss")


def fetched(name: str, directory: Path) -> Path:
    local = Path(os.environ.get("SWEEP_REFERENCE_DATA", "absent")) / "steplaw" / name
    path = directory / name
    try:
        content = (
            local.read_bytes() if local.exists() else urllib.request.urlopen(SOURCE + name, timeout=20).read()
        )
    except OSError as error:
        pytest.skip(f"{SOURCE}{name} cannot be fetched: {error}")
    assert hashlib.sha256(content).hexdigest() == SHA256[name]
    path.write_bytes(content)
    return path


def near_best_runs(path: Path) -> pd.DataFrame:
    """Return ln N, ln D, ln lr and ln B of all runs within 0.25% of their cell's lowest loss."""
    runs = pd.read_csv(path)
    lowest = runs.groupby(["N", "D"])["smooth loss"].transform("min")
    near = runs[runs["smooth loss"] < 1.0025 * lowest]
    return np.log(pd.DataFrame({"N": near.N, "D": near.D, "lr": near.lr, "batch": near.bs * 2048}))


def resampled(runs: pd.DataFrame, n: int = 1000) -> np.ndarray:
    """Return ln c and exponents of N and D over resamples: those of the rate, then of the batch."""
    rng, values = np.random.default_rng(0), runs.to_numpy()
    draws = []
    for _ in range(n):
        log_n, log_d, lr, batch = values[rng.integers(0, len(values), len(values))].T
        of_rate = np.linalg.lstsq(np.stack([np.ones_like(lr), log_n, log_d], 1), lr, rcond=None)[0]
        of_batch = np.linalg.lstsq(np.stack([np.ones_like(lr), log_d], 1), batch, rcond=None)[0]
        draws.append([*of_rate, *of_batch])
    return np.array(draws)


def spread(draws: np.ndarray) -> np.ndarray:
    """Return the standard deviations of ln N and ln D of the runs that were resampled.

    ln c = mean(y) - a mean(x), so that its part that the exponents do not explain has the variance s^2 / n of
    a mean, and the covariance of the exponents is that over the covariance of the sizes.
    """
    design = np.stack([np.ones(len(draws)), draws[:, 1], draws[:, 2]], 1)
    left = draws[:, 0] - design @ np.linalg.lstsq(design, draws[:, 0], rcond=None)[0]
    return np.sqrt(np.diag(np.linalg.inv(np.cov(draws[:, 1:3].T)) * left.var()))


def test_exponents_are_those_of_their_selection_and_close_to_the_published_ones(tmp_path):
    path = fetched(RUNS, tmp_path)
    found = fit_table_hparams(path, columns=COLUMNS, lr="lr", batch="bs * 2048")
    lr, batch = found.laws["lr"], found.laws["batch"]
    assert (lr.n_cells, batch.n_cells) == (17, 17)
    theirs = resampled(near_best_runs(path)).mean(axis=0)
    assert (*lr.near_best, *batch.near_best) == pytest.approx(theirs[[1, 2, 4]], abs=0.005)
    assert lr.n_exponent.interval[0] < -0.713 < lr.n_exponent.interval[1]
    assert batch.d_exponent.value == pytest.approx(0.571, abs=0.005)
    assert lr.d_exponent.value == pytest.approx(theirs[2], abs=0.02)


def test_the_published_exponents_come_from_other_runs(tmp_path):
    """Their resamples imply a spread of N and D that the runs of the table do not have."""
    columns = ["lr_intercept", "lr_coefN", "lr_coefD", "bs_intercept", "bs_coefD"]
    published = pd.read_csv(fetched(RESAMPLES, tmp_path))[columns].to_numpy()
    assert published.mean(axis=0)[[1, 2, 4]] == pytest.approx([-0.713, 0.307, 0.571], abs=0.001)
    runs = near_best_runs(fetched(RUNS, tmp_path))
    actual = runs[["N", "D"]].std().to_numpy()
    assert spread(resampled(runs)) == pytest.approx(actual, rel=0.1)
    assert (spread(published) > 1.3 * actual).all()
