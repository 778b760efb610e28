"""Checks of the data set when runs are planned."""

from pathlib import Path

import pytest

from sweep.config.compose import compose_experiment
from sweep.errors import DataError
from sweep.study.plan import hparam_check, plan_experiment, prepare_data


def overrides(directory: Path, n_tokens: int) -> list[str]:
    return [
        "experiment=smoke",
        "data=text",
        f"data.files={directory}/text/*.txt",
        f"data_dir={directory}/data",
        "data.holdout_frac=0.3",
        "tokenizer=bpe",
        "tokenizer.vocab_size=270",
        f"evaluation.n_tokens={n_tokens}",
    ]


def test_more_positions_than_held_out_tokens_are_refused_at_plan_time(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for number in range(60):
        (tmp_path / f"text/{number}.txt").write_text(f"{number} " + "once upon a time there was " * 40)
    with pytest.raises(DataError, match=r"^evaluation\.n_tokens=900,000 is too .* has at most [\d,]+: lower"):
        plan_experiment(compose_experiment(overrides(tmp_path, 900_000)))
    n_tokens = len(prepare_data(compose_experiment(overrides(tmp_path, 64))).heldout.tokens)
    seq_len = compose_experiment(overrides(tmp_path, 64)).model.seq_len
    most = (n_tokens - 1) // seq_len * seq_len
    plan_experiment(compose_experiment(overrides(tmp_path, most)))
    too_many = compose_experiment(overrides(tmp_path, most + 1))
    sentence = rf"evaluation\.n_tokens={most + 1:,} .* the held-out text has {n_tokens:,}: lower it"
    for plan in (plan_experiment, hparam_check):
        with pytest.raises(DataError, match=sentence):
            plan(too_many)
