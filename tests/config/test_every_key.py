"""Every key changes something: the plan, the data, a fit, or what a launcher, worker or tracker does.

A new key needs a case here. A key that no case can be found for has no effect and should not exist.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sweep.config import ExperimentConfig, known_keys, read_experiment
from sweep.config.compose import compose
from sweep.config.places import data_directory, sweep_directory
from sweep.data.registry import scan, source_of
from sweep.data.tokenizers.tokenizers import tokenizer_sha256
from sweep.plan.devices import check_devices
from sweep.plan.grid import make_plan
from sweep.plan.hparam_check import plan_check
from sweep.records import Dataset
from sweep.store.plans import PlanEntry
from sweep.study.plan import dataset
from sweep.worker.placement import placement
from tests.config.observers import (
    fit_effect,
    index_effect,
    launch_effect,
    law_effect,
    mixed_fit_effect,
    tracking_effect,
    worker_effect,
)

SWEEP = Path(__file__).parents[2] / "sweep"
FAKES = Path(__file__).parent / "fakes"
DATASET = Dataset(
    corpus="test",
    corpus_sha256="0" * 64,
    tokenizer="byte",
    tokenizer_sha256="1" * 64,
    vocab_size=256,
    n_train_tokens=10_000_000,
)


@dataclass(frozen=True)
class Case:
    """A value that changes what `observe` returns, on top of the overrides `base`."""

    value: Any
    base: tuple[str, ...] = ()
    observe: str = "plan"


NO_D_MODEL = ("grid.d_model=null",)
GPT = ("grid.d_model=[64,128]", "model=gpt", "budgets=[1e12]", "batch_tokens=1024", "grid.min_steps=1")
MUON, SGD = ("optimizer=muon",), ("optimizer=sgd", "optimizer.lr=0.3")
WSD = ("schedule=wsd",)
TEXT = ("data=text", f"data.files={SWEEP}/*/*.py", "data.holdout_frac=0.3")
BATCH = ("batch_tokens=640",)
TALES = ("data=huggingface", f"data.dataset={FAKES}/tales.jsonl", "data.holdout_frac=0.3")
HUB = ("data=huggingface", "data.dataset=me/tales", f"data.revision='{'0' * 40}'")
MIXTURE = ("data=mixture", "data.parts={a:{source:synthetic,n_documents:40}}", "data.weights={a:1.0}")
SYNTHETIC = ("data=synthetic", "data.n_documents=40", "data.document_symbols=64")
SLURM, RAY = ("launch=slurm",), ("launch=ray",)
FAR = (*RAY, "launch.address=auto", "launch.allow_insecure=true")
WANDB = ("tracking=wandb", "tracking.mode=offline")
BARE = "fit.n_bootstrap=0"
ISOFLOP, PARAMETRIC = (BARE, "fit.methods=[isoflop]"), (BARE, "fit.methods=[parametric]")
DRAWN = ("fit.n_bootstrap=20", "fit.methods=[isoflop]")

CASES: dict[str, Case] = {
    "name": Case("other", observe="places"),
    "results_dir": Case("elsewhere", observe="places"),
    "data_dir": Case("elsewhere", observe="places"),
    "budgets": Case([1e10]),
    "seeds": Case([1]),
    "batch_tokens": Case(640),
    "batch_multiplier": Case(2),
    "batch_power_of_two": Case(True),
    "mup_base_width": Case(16, ("optimizer.lr=0.02",)),
    "precision": Case("bf16"),
    "grid.d_model": Case([8, 16, 24, 32]),
    "grid.n_params": Case([1e4, 2e4], NO_D_MODEL),
    "grid.tokens_per_param": Case(20, NO_D_MODEL),
    "grid.span": Case(4, NO_D_MODEL),
    "grid.n_sizes": Case(4, NO_D_MODEL),
    "grid.max_budget_error": Case(0.0001),
    "grid.min_steps": Case(600),
    "grid.max_epochs": Case(0.01),
    "model.seq_len": Case(32),
    "model.n_layers": Case(3),
    "model.aspect_ratio": Case(32, GPT),
    "model.n_heads": Case(1),
    "model.head_dim": Case(32, GPT),
    "model.n_kv_heads": Case(1),
    "model.width_multiple": Case(16, NO_D_MODEL),
    "model.mlp_ratio": Case(3),
    "model.d_ff_multiple": Case(64),
    "model.norm": Case("layer"),
    "model.norm_eps": Case(1e-5),
    "model.positions": Case("learned"),
    "model.rope_base": Case(1000),
    "model.activation": Case("swiglu"),
    "model.bias": Case(True),
    "model.tied": Case(False),
    "model.qk_norm": Case(False),
    "model.qk_gain": Case(1.0),
    "model.embedding_scale": Case(1.0),
    "model.init_std": Case(0.02),
    "data.source": Case("synthetic", observe="data"),
    "data.holdout_frac": Case(0.3, SYNTHETIC, observe="data"),
    "data.roots": Case([str(SWEEP / "data")], ("data=python", f"data.roots={SWEEP}"), "data"),
    "data.files": Case([f"{SWEEP}/*/[a-m]*.py"], TEXT, observe="data"),
    "data.delimiter": Case("\\n", TEXT, observe="data"),
    "data.seed": Case(1, SYNTHETIC, observe="data"),
    "data.n_symbols": Case(8, SYNTHETIC, observe="data"),
    "data.order": Case(1, SYNTHETIC, observe="data"),
    "data.n_documents": Case(30, SYNTHETIC, observe="data"),
    "data.document_symbols": Case(32, SYNTHETIC, observe="data"),
    "data.dataset": Case(str(FAKES / "letters.jsonl"), TALES, "data"),
    "data.revision": Case("1" * 40, HUB, "source"),
    "data.subset": Case("short", HUB, "source"),
    "data.split": Case("test", HUB, "source"),
    "data.column": Case("title", TALES, "data"),
    "data.streaming": Case("data/sources", observe="read by"),
    "data.parts": Case({"a": {"source": "stdlib"}}, MIXTURE, observe="data"),
    "data.weights": Case({"a": 2.0}, MIXTURE, observe="data"),
    "tokenizer.name": Case("data/tokenizers", observe="read by"),
    "tokenizer.vocab_size": Case(200, SYNTHETIC, observe="data"),
    "tokenizer.path": Case("data/tokenizers", observe="read by"),
    "tokenizer.revision": Case("data/tokenizers", observe="read by"),
    "tokenizer.separator": Case("data/tokenizers", observe="read by"),
    "optimizer.name": Case("muon"),
    "optimizer.lr": Case(0.01),
    "optimizer.lr_multiplier": Case(0.5),
    "optimizer.lr_max": Case(0.001),
    "optimizer.beta1": Case(0.5),
    "optimizer.beta2": Case("half_life"),
    "optimizer.eps": Case(1e-6),
    "optimizer.weight_decay": Case("power_lines"),
    "optimizer.grad_clip": Case(2),
    "optimizer.momentum": Case(0.5, SGD),
    "optimizer.nesterov": Case(True, SGD),
    "optimizer.ns_steps": Case(3, MUON),
    "optimizer.muon_scaling": Case("original", (*MUON, "optimizer.lr=0.01")),
    "schedule.name": Case("linear"),
    "schedule.warmup_frac": Case(0.2),
    "schedule.warmup_tokens": Case(2000, ("schedule.warmup_frac=null", "schedule.warmup_tokens=n_params")),
    "schedule.decay_frac": Case(0.1, WSD),
    "schedule.final_lr_frac": Case(0.5),
    "schedule.cooldown_branches": Case(True, WSD),
    "evaluation.n_tokens": Case(1000),
    "evaluation.sets": Case({"a": {"source": "stdlib"}}, SYNTHETIC, observe="sets"),
    "evaluation.selection": Case("even"),
    "trainer.device": Case("cuda", ("trainer.device=cpu",), observe="placement"),
    "trainer.micro_batch_size": Case(1, BATCH, observe="placement"),
    "trainer.checkpoint_interval_s": Case(60, observe="placement"),
    "trainer.keep_checkpoint": Case(True, observe="placement"),
    "trainer.measure_noise_scale": Case(True, observe="placement"),
    "trainer.deterministic": Case(True, observe="placement"),
    "trainer.n_devices": Case(2, BATCH, observe="placement"),
    "trainer.stop_outliers": Case(True, observe="worker"),
    "trainer.parallel": Case("ddp", (*BATCH, "trainer.n_devices=2"), observe="placement"),
    "estimate.flops_per_second": Case(1e12),
    "estimate.step_overhead_s": Case(1),
    "estimate.price_per_hour": Case(2),
    "launch.name": Case("ray", ("launch.n_workers=2",), "launch"),
    "launch.n_workers": Case(3, ("launch.n_workers=2",), "launch"),
    "launch.mps": Case(True, ("launch.n_workers=2",), "launch"),
    "launch.lease_s": Case(60, observe="worker"),
    "launch.stall_s": Case(60, observe="worker"),
    "launch.max_failures": Case(1, observe="worker"),
    "launch.partition": Case("gpu", SLURM, "launch"),
    "launch.account": Case("lab", SLURM, "launch"),
    "launch.gres": Case("gpu:1", SLURM, "launch"),
    "launch.time": Case("1:00:00", SLURM, "launch"),
    "launch.constraint": Case("a100", SLURM, "launch"),
    "launch.cpus_per_worker": Case(3, SLURM, "launch"),
    "launch.mem": Case("16G", SLURM, "launch"),
    "launch.options": Case({"qos": "high"}, SLURM, "launch"),
    "launch.export": Case(["OWN_VARIABLE"], SLURM, "launch"),
    "launch.signal_s": Case(60, SLURM, "launch"),
    "launch.min_claim_s": Case(30, SLURM, "launch"),
    "launch.address": Case("head:6379", FAR, "launch"),
    "launch.gpus_per_worker": Case(0.5, RAY, "launch"),
    "launch.resources": Case({"a100": 1}, RAY, "launch"),
    "launch.allow_insecure": Case(False, FAR, "launch"),
    "tracking.name": Case("wandb", ("tracking.mode=offline",), "tracking"),
    "tracking.project": Case("other", WANDB, "tracking"),
    "tracking.entity": Case("lab", WANDB, "tracking"),
    "tracking.mode": Case("online", WANDB, "tracking"),
    "store.index_url": Case("sqlite:///points.db", observe="index"),
    "fit.methods": Case(["parametric"], ISOFLOP, "fit"),
    "fit.huber_delta": Case(0.1, PARAMETRIC, "fit"),
    "fit.n_bootstrap": Case(10, ISOFLOP, "fit"),
    "fit.confidence": Case(0.5, DRAWN, "fit"),
    "fit.max_interval_factor": Case(1.0001, DRAWN, "fit"),
    "fit.max_reach": Case(2, ISOFLOP, "fit"),
    "fit.seed": Case(1, DRAWN, "fit"),
    "fit.allow_mixed_schedules": Case(True, ISOFLOP, "fit of two schedules"),
    "fit.filters.drop_highest_losses": Case(3, ISOFLOP, "fit"),
    "fit.filters.max_loss": Case(3.2, ISOFLOP, "fit"),
    "fit.filters.min_flops": Case(2e11, ISOFLOP, "fit"),
    "fit.filters.max_flops": Case(2e12, ISOFLOP, "fit"),
    "fit.filters.max_epochs": Case(5, ISOFLOP, "fit"),
    "fit.isoflop.window": Case(5, ISOFLOP, "fit"),
    "fit.isoflop.robust": Case(True, (*ISOFLOP, "fit.isoflop.window=all"), "law"),
    "fit.isoflop.weighted": Case(False, ISOFLOP, "fit"),
    "fit.isoflop.bias_corrected": Case(True, ISOFLOP, "fit"),
    "fit.parametric.residuals": Case("linear", PARAMETRIC, "fit"),
    "fit.parametric.irreducible_loss": Case(0.9, PARAMETRIC, "fit"),
    "fit.kaplan.n_params": Case("total", (BARE, "fit.methods=[kaplan]"), "law"),
    "fit.data_constrained.base": Case("muennighoff_2023", (BARE, "fit.methods=[data_constrained]"), "law"),
    "hparam_check.seeds": Case([7], observe="check"),
    "adaptive.enabled": Case("study", observe="read by"),
    "adaptive.target": Case("study", observe="read by"),
    "adaptive.goal": Case("study", observe="read by"),
    "adaptive.flops_budget": Case("study", observe="read by"),
    "adaptive.max_budget": Case("study", observe="read by"),
}


OTHER_LAUNCHERS = (
    ("launch.n_workers", Case(3, SLURM, "launch")),
    ("launch.n_workers", Case(3, RAY, "launch")),
    ("launch.cpus_per_worker", Case(3, RAY, "launch")),
)
"""Cases of the keys that several launchers share."""

OBSERVED = [(key, case) for key, case in CASES.items() if case.observe != "read by"]


def test_every_key_has_a_case_and_every_case_a_key():
    assert sorted(CASES) == sorted(known_keys())


@pytest.mark.parametrize(("key", "case"), [*OBSERVED, *OTHER_LAUNCHERS])
def test_a_key_changes_what_it_is_for(key, case):
    before = composed(case.base)
    after = copy.deepcopy(before)
    *parents, last = key.split(".")
    section = after
    for parent in parents:
        section = section[parent]
    assert section[last] != case.value
    section[last] = case.value
    if parents and last == "name":  # another member of a group may not know the keys of this one
        after[parents[0]] = {name: value for name, value in section.items() if value is not None}
    observe = OBSERVERS[case.observe]
    assert observe(read_experiment(after)) != observed(case.observe, case.base)


def test_the_other_keys_are_read_where_they_are_for():
    """Keys with an effect that is not seen cheaply, each with tests of its own in tests/data or tests/study.

    data.streaming changes a download from the hub, and no document. The tokenizer's path, revision and
    separator need a tokenizer file and its library. No other name of a tokenizer is valid with the same
    vocab_size: bpe has more tokens than byte, and pretrained needs a path.
    """
    packages = {key: case.value for key, case in CASES.items() if case.observe == "read by"}
    assert packages
    unread = [
        key for key, package in packages.items() if key.rpartition(".")[2] not in attributes_read(package)
    ]
    assert unread == []


@cache
def observed(name: str, base: tuple[str, ...]) -> Any:
    """The observation without a change."""
    return OBSERVERS[name](read_experiment(composed(base)))


@cache
def _composed(base: tuple[str, ...]) -> dict[str, Any]:
    return compose(["experiment=smoke", *base])


def composed(base: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in copy.deepcopy(_composed(base)).items() if key != "arms"}


def _plan(experiment: ExperimentConfig) -> Any:
    plan = make_plan(experiment, DATASET)
    return plan.runs, plan.dropped, plan.warnings


def _check(experiment: ExperimentConfig) -> Any:
    return [run.run_key for run in plan_check(experiment, DATASET).plan.runs]


def _places(experiment: ExperimentConfig) -> Any:
    return sweep_directory(experiment), data_directory(experiment)


def _placement(experiment: ExperimentConfig) -> Any:
    run = make_plan(experiment, DATASET).runs[-1]
    check_devices(run.config, experiment.trainer.n_devices, experiment.trainer.parallel)
    entry = PlanEntry(
        run_key=run.run_key,
        name="run",
        flops=1,
        n_steps=1,
        memory_bytes=1,
        time_s=run.time_s,
        experiment=experiment,
    )
    return placement(entry)


def _data(experiment: ExperimentConfig) -> Any:
    corpus = scan(experiment.data)
    return corpus, tokenizer_sha256(experiment.tokenizer, corpus.sha256)


def _sets(experiment: ExperimentConfig) -> Any:
    return dataset(experiment).sets


def _source(experiment: ExperimentConfig) -> Any:
    return source_of(experiment.data).recipe


OBSERVERS = {
    "plan": _plan,
    "check": _check,
    "places": _places,
    "placement": _placement,
    "data": _data,
    "source": _source,
    "sets": _sets,
    "fit": fit_effect,
    "law": law_effect,
    "fit of two schedules": mixed_fit_effect,
    "launch": launch_effect,
    "worker": worker_effect,
    "tracking": tracking_effect,
    "index": index_effect,
}


@cache
def attributes_read(package: str) -> frozenset[str]:
    """Names of attributes that the modules of `sweep/PACKAGE` read."""
    trees = [ast.parse(path.read_text()) for path in (SWEEP / package).rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree))
    return frozenset(node.attr for node in nodes if isinstance(node, ast.Attribute))
