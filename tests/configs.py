"""Small configs shared by tests."""

from dataclasses import replace
from functools import cache

from sweep.config import (
    EvaluationConfig,
    ExperimentConfig,
    ModelConfig,
    RunConfig,
    RunOptimizer,
    RunSchedule,
)

TINY = ModelConfig(
    vocab_size=97,
    seq_len=16,
    d_model=24,
    n_layers=2,
    n_heads=2,
    n_kv_heads=2,
    d_ff=96,
    rope_base=100.0,
    tied=True,
    qk_norm=True,
    qk_gain=1.2,
    embedding_scale=0.5,
)


def tiny_run(**changes: object) -> RunConfig:
    run = RunConfig(
        name="tiny",
        experiment="test",
        arm=None,
        flops_budget=None,
        model=TINY,
        corpus="none",
        corpus_sha256="0" * 64,
        tokenizer="none",
        tokenizer_sha256="1" * 64,
        optimizer=RunOptimizer(
            name="adamw", lr_peak=0.01, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, grad_clip=1.0
        ),
        schedule=RunSchedule(name="cosine", warmup_steps=4, decay_steps=0, final_lr_frac=0.0),
        batch_tokens=64,
        n_tokens=64 * 40,
        precision="fp32",
        evaluation=EvaluationConfig(n_tokens=256),
        seed=0,
    )
    return replace(run, **changes)  # type: ignore[arg-type]


@cache
def composed(*overrides: str) -> ExperimentConfig:
    """The composed experiment, which costs Hydra 0.1 s, once for all tests that need it."""
    from sweep.config.compose import compose_experiment  # Hydra: not in every worker

    return compose_experiment(overrides)


SMALL_SWEEP = (
    "experiment=smoke",
    "grid.min_steps=5",
    "grid.max_epochs=1000",
    "grid.max_budget_error=0.2",
    "batch_tokens=256",
    "evaluation.n_tokens=1024",
    "fit.n_bootstrap=20",
    "fit.methods=[isoflop]",
    "data=synthetic",
    "data.n_documents=60",
)
"""Settings of sweeps that are planned in a moment, without budgets and sizes."""
