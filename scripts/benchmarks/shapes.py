"""Benchmark shapes and their training runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.config import EvaluationConfig, ModelConfig, RunConfig, RunOptimizer, RunSchedule
from sweep.data.batches import TrainBatches
from sweep.data.token_files import Tokens
from sweep.records import Placement
from sweep.train.models.gpt import GPT
from sweep.train.step import TrainingStep


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One model and batch; the architecture is nanoGPT's without biases, so that both compute the same."""

    name: str
    d_model: int
    n_layers: int
    n_heads: int
    seq_len: int
    batch_size: int
    vocab_size: int

    def model(self) -> ModelConfig:
        """Return the decoder: layer norm, learned positions, exact GELU, tied head, unscaled embedding."""
        return ModelConfig(
            vocab_size=self.vocab_size, seq_len=self.seq_len, d_model=self.d_model, n_layers=self.n_layers,
            n_heads=self.n_heads, n_kv_heads=self.n_heads, d_ff=4 * self.d_model, norm="layer",
            norm_eps=1e-5, positions="learned", rope_base=1e4, activation="gelu_exact", bias=False,
            tied=True, qk_norm=False, qk_gain=1.0, embedding_scale=self.d_model**-0.5,
        )  # fmt: skip

    def run(self, precision: str) -> RunConfig:
        """Return a run that is longer than any measurement."""
        batch_tokens = self.batch_size * self.seq_len
        return RunConfig(
            name=self.name, experiment="bench", arm=None, flops_budget=None, model=self.model(),
            corpus="random", corpus_sha256="0" * 64, tokenizer="none", tokenizer_sha256="0" * 64,
            optimizer=RunOptimizer(
                name="adamw", lr_peak=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, grad_clip=1.0
            ),
            schedule=RunSchedule(name="constant", warmup_steps=0, decay_steps=0, final_lr_frac=1.0),
            batch_tokens=batch_tokens, n_tokens=batch_tokens * 10**6, precision=precision,  # type: ignore
            evaluation=EvaluationConfig(n_tokens=self.seq_len), seed=0,
        )  # fmt: skip


R2 = Shape(name="d128 L4 T64", d_model=128, n_layers=4, n_heads=4, seq_len=64, batch_size=12, vocab_size=65)
CPU_SHAPES = (
    R2,
    Shape(name="d32 L2 T32", d_model=32, n_layers=2, n_heads=4, seq_len=32, batch_size=12, vocab_size=65),
    Shape(name="d64 L2 T64", d_model=64, n_layers=2, n_heads=4, seq_len=64, batch_size=12, vocab_size=65),
    Shape(name="demo d24", d_model=24, n_layers=2, n_heads=2, seq_len=64, batch_size=24, vocab_size=1024),
    Shape(name="demo d96", d_model=96, n_layers=2, n_heads=2, seq_len=64, batch_size=7, vocab_size=1024),
)
CPU_RACE_SHAPES = (CPU_SHAPES[1], CPU_SHAPES[2], R2)


def _gpu(name: str, d_model: int, n_layers: int, batch_size: int) -> Shape:
    return Shape(
        name=name, d_model=d_model, n_layers=n_layers, n_heads=d_model // 64, seq_len=1024,
        batch_size=batch_size, vocab_size=50_304,
    )  # fmt: skip


GPU_SHAPES = (
    _gpu("1M", 128, 4, 64), _gpu("10M", 320, 8, 64), _gpu("30M", 512, 10, 64),
    _gpu("124M", 768, 12, 64), _gpu("350M", 1024, 24, 32), _gpu("1B", 1536, 32, 16),
)  # fmt: skip


GPU_RACE_SHAPES = (
    _gpu("race 1M", 128, 4, 16), _gpu("race 3M", 192, 6, 16), _gpu("race 5M", 256, 6, 16),
    _gpu("race 10M", 320, 8, 16), _gpu("race 30M", 512, 10, 16),
)  # fmt: skip
"""For 1e15 to 1e16 FLOPs, with batches that give the largest model 150 steps at the smallest budget."""

N_RANDOM_TOKENS = 2**20


def random_tokens(shape: Shape) -> NDArray[np.uint16]:
    """Return token ids in the dtype of a token file, the same at every call."""
    return np.random.default_rng(0).integers(0, shape.vocab_size, N_RANDOM_TOKENS).astype(np.uint16)


def batches(shape: Shape) -> TrainBatches:
    """Return batches of random tokens, read as in a run."""
    return TrainBatches(Tokens([random_tokens(shape)]), shape.seq_len, shape.batch_size, seed=0)


def stepper(shape: Shape, precision: str, device: str, scratch: Path) -> TrainingStep:
    """Return a training step on random tokens, with its compilation cache below `scratch`."""
    run = shape.run(precision)
    model = GPT(run.model)
    model.initialise(torch.Generator().manual_seed(0))
    placement = Placement(
        data_dir=scratch, device=device, n_threads=torch.get_num_threads(), micro_batch_size=None,
        checkpoint_interval_s=1e9,
    )  # fmt: skip
    return TrainingStep(model.to(device), run, placement, batches(shape).rows)


def counted(step: TrainingStep) -> Callable[[], None]:
    """Return the step as a call without arguments."""
    number = iter(range(10**9))

    def call() -> None:
        step(next(number))

    return call
