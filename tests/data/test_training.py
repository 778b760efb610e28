"""A few real training steps with each source and tokenizer, up to a committed point."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.config import SyntheticData
from sweep.config.compose import compose_experiment
from sweep.config.places import sweep_directory
from sweep.data.sources.synthetic import loss_floor
from sweep.data.tokenizers.bpe import train_bpe
from sweep.store.run_store import RunStore
from sweep.study.plan import plan_experiment, prepare_data
from sweep.train.loop import train
from sweep.worker.__main__ import work
from tests.data.corpora import generated
from tests.verbs import forked

TINY = [
    "experiment=smoke",
    "budgets=[2e8]",
    "grid.d_model=[8]",
    "grid.min_steps=2",
    "grid.max_budget_error=0.2",
    "evaluation.n_tokens=2048",
    "data.holdout_frac=0.2",
    "launch.n_workers=1",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("files")
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghij", k=6)) for _ in range(200)]
    texts = [" ".join(chance.choices(words, k=1500)) for _ in range(40)]
    for number, text in enumerate(texts):
        (place / f"{number}.txt").write_text(text)
        (place / f"{number}.py").write_text(f"TEXT = '{text}'\n")
    (place / "parquet").mkdir()
    pq.write_table(pa.table({"text": texts}), place / "parquet" / "all.parquet")
    train_bpe(generated(80), 300, place / "tokenizer.json")
    return place


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(["data=stdlib"], marks=pytest.mark.ci),
        ["data=python", "data.roots={files}"],
        ["data=text", "data.files={files}/*.txt"],
        ["data=text", "data.files={files}/*.txt", "tokenizer=bpe", "tokenizer.vocab_size=300"],
        [
            "data=text",
            "data.files={files}/*.txt",
            "tokenizer=pretrained",
            "tokenizer.path={files}/tokenizer.json",
        ],
        ["data=huggingface", "data.dataset={files}/parquet"],
        pytest.param(
            ["data=huggingface", "data.dataset={files}/parquet", "data.streaming=false"], marks=pytest.mark.ci
        ),
        ["data=synthetic", "data.n_documents=200"],
    ],
    ids=lambda choice: "-".join(word.split("=")[1].split("/")[-1] for word in choice),
)
def test_a_point_is_committed(choice: list[str], files: Path, tmp_path: Path) -> None:
    overrides = [word.format(files=files) for word in choice]
    places = [f"results_dir={tmp_path}", f"data_dir={tmp_path / 'data'}"]
    experiment = compose_experiment([*TINY, *overrides, *places])
    prepare_data(experiment)
    store = RunStore(sweep_directory(experiment))
    store.add_plan(plan_experiment(experiment))
    assert work(store.sweep_dir, train=train).n_done == 1
    (point,) = store.points().points
    assert point.loss is not None
    assert 0 < point.loss < 6
    assert point.bits_per_byte is not None
    assert point.tokenizer == experiment.tokenizer.name
    assert point.vocab_size == (256 if point.tokenizer == "byte" else 300)
    if isinstance(experiment.data, SyntheticData):
        assert point.loss > loss_floor(experiment.data, experiment.model.seq_len)


def test_few_held_out_documents_give_a_warning_when_the_data_is_prepared_and_when_it_is_fitted(
    files: Path, tmp_path: Path
) -> None:
    places = [f"results_dir={tmp_path / 'results'}", f"data_dir={tmp_path / 'data'}"]
    sweep = [*TINY, "data=text", f"data.files={files}/1*.txt", "data.holdout_frac=0.4", *places]
    prepared = forked("data", "prepare", *sweep, cwd=tmp_path)
    inspected = json.loads(forked("data", "inspect", *sweep, cwd=tmp_path).stdout)
    n_held_out = inspected["n_documents_held_out"]
    assert inspected["n_documents"] == 11
    warning = f"warning: only {n_held_out} documents are held out"
    assert warning in prepared.stderr
    experiment = compose_experiment(sweep)
    store = RunStore(sweep_directory(experiment))
    store.add_plan(plan_experiment(experiment))
    assert work(store.sweep_dir, train=train).n_done == 1
    fitted = forked("fit", store.sweep_dir, cwd=tmp_path)
    assert fitted.stderr.count(warning) == 1
