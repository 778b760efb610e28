"""Export of finished runs: transformers computes the held-out loss that the run committed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sweep.config import EvaluationConfig
from sweep.config.compose import compose_experiment
from sweep.data.batches import evaluation_windows
from sweep.errors import DataError, InputError
from sweep.records import Plan
from sweep.store.run_store import RunStore
from sweep.train.checkpoint import load_latest
from sweep.train.export import export_run, main
from sweep.train.loop import train
from sweep.worker.__main__ import work
from tests.configs import TINY
from tests.plans import planned
from tests.train.sessions import Session, placement, run_on

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may ask a server
transformers = pytest.importorskip("transformers")

REPOSITORY = Path(__file__).parents[2]
SMALL = replace(TINY, vocab_size=256, seq_len=32, n_heads=4, qk_norm=False)
MODELS = {
    "GPT2LMHeadModel": replace(
        SMALL, n_kv_heads=4, norm="layer", positions="learned", activation="gelu", bias=True
    ),
    "LlamaForCausalLM": replace(SMALL, n_kv_heads=2, activation="swiglu", tied=False),
}


def trained_sweep(directory, corpus, models, keep=True):
    """Train a sweep with one run per model; return the run keys in order."""
    keys = [f"data_dir={corpus.directory.parents[1]}", f"trainer.keep_checkpoint={str(keep).lower()}"]
    experiment = compose_experiment(["experiment=smoke", "trainer.device=cpu", *keys])
    runs = tuple(planned(run_on(corpus, model=model, n_tokens=256 * 20)) for model in models)
    RunStore(directory).add_plan(Plan(experiment=experiment, runs=runs, dropped=(), warnings=()))
    assert work(directory, train=train).n_done == len(runs)
    return [run.run_key for run in runs]


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sweep")
    return directory, dict(zip(MODELS, trained_sweep(directory, corpus, MODELS.values()), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_transformers_scores_the_committed_loss(finished, corpus, tmp_path, name):
    directory, keys = finished
    out = export_run(directory, keys[name], tmp_path / "deep" / "out", corpus.directory.parents[1])
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert type(model).__name__ == name
    windows = evaluation_windows(corpus.heldout, 32, EvaluationConfig(n_tokens=4096))
    tokens = torch.from_numpy(windows.tokens)
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits.flatten(0, 1).double()
    loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).item()
    points = {point.run_key: point for point in RunStore(directory).points().points}
    assert loss == pytest.approx(points[keys[name]].loss, rel=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = corpus.heldout.tokens.read(0, 50).tolist()
    assert tokenizer(bytes(ids).decode()).input_ids == ids
    assert model.config.eos_token_id == tokenizer.eos_token_id == 0


@pytest.mark.ci
def test_the_verb_writes_and_refuses_in_one_sentence(finished, tmp_path):
    directory, keys = finished

    def verb(*arguments):
        code = "from sweep.cli.app import main; main()"
        command = [sys.executable, "-c", code, "export", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)

    key, out = keys["LlamaForCausalLM"], tmp_path / "out"
    done = verb(str(directory), key, "--to", str(out))
    assert (done.returncode, done.stdout) == (0, f"{out}\n")
    assert json.loads((out / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    again = verb(str(directory), key, "--to", str(out))
    assert again.returncode == 2
    assert again.stderr == f"error: {out} already exists: choose a new or an empty directory\n"


def test_a_run_that_kept_nothing_says_so(corpus, tmp_path):
    (key,) = trained_sweep(tmp_path, corpus, [MODELS["LlamaForCausalLM"]], keep=False)
    with pytest.raises(
        InputError, match=r"has no final weights: delete .*result.json and train it again with"
    ):
        export_run(tmp_path, key, tmp_path / "out", corpus.directory.parents[1])
    (tmp_path / "runs" / key / "result.json").unlink()
    with pytest.raises(InputError, match="is not finished: it has no final weights yet"):
        export_run(tmp_path, key, tmp_path / "out", corpus.directory.parents[1])
    assert not (tmp_path / "out").exists()


def test_bad_arguments_are_refused(finished, corpus, tmp_path, capsys):
    directory, keys = finished
    data_dir = corpus.directory.parents[1]
    with pytest.raises(InputError, match="has no run 0123456789abcdef: sweep status shows its run keys"):
        export_run(directory, "0123456789abcdef", tmp_path / "out", data_dir)
    with pytest.raises(InputError, match="is not a run key"):
        export_run(directory, "../up", tmp_path / "out", data_dir)
    (tmp_path / "file").write_text("mine")
    assert main([str(directory), keys["GPT2LMHeadModel"], str(tmp_path / "file"), str(data_dir)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([]) == 2


def test_a_model_no_stock_class_expresses_is_refused_before_its_weights_are_asked_for(corpus, tmp_path):
    (key,) = trained_sweep(tmp_path, corpus, [replace(SMALL, n_kv_heads=4)], keep=False)
    with pytest.raises(InputError, match=r"no stock class .*LlamaForCausalLM would need activation=swiglu"):
        export_run(tmp_path, key, tmp_path / "out", corpus.directory.parents[1])


def test_nothing_is_left_behind_when_the_tokenizer_is_gone(finished, tmp_path, monkeypatch):
    directory, keys = finished

    def gone(*arguments):
        raise DataError("gone")

    monkeypatch.setattr("sweep.train.export.stock_tokenizer", gone)
    with pytest.raises(DataError, match="gone"):
        export_run(directory, keys["GPT2LMHeadModel"], tmp_path / "out", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_kept_checkpoint_is_the_last_step(corpus, tmp_path):
    run = run_on(corpus, n_tokens=256 * 7)
    train(run, placement(corpus), Session(tmp_path))
    assert load_latest(tmp_path) is None
    kept = train(run, placement(corpus, keep_checkpoint=True), Session(tmp_path))
    assert load_latest(tmp_path).step == 7
    session = Session(tmp_path)
    again = train(run, placement(corpus, keep_checkpoint=True), session)  # died between training and commit
    assert session.records[0] == {"event": "resumed", "step": 7}
    assert again.loss == kept.loss
