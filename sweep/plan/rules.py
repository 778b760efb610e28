"""Hyperparameters from size and tokens, by named rules with their sources.

Legend: N non-embedding parameters, D tokens of the run, B tokens per step, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sweep.config import ModelConfig, OptimizerConfig, RunSchedule, ScheduleConfig
from sweep.flops import n_params


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One budget at one shape: what a rule may look at."""

    budget: float  # C asked for
    model: ModelConfig
    n_tokens: int
    batch_tokens: int

    @property
    def n_steps(self) -> int:
        """Optimizer steps."""
        return self.n_tokens // self.batch_tokens


def tiny_lr(cell: Cell) -> float:
    """min(0.026, 0.016 · sqrt(B/512) · 32/d).

    Source: our own check at both ends of the demo grids, docs/log.md: two-layer decoders of width 8 to 96
    with QK-norm and tied embeddings at 4e10 to 8e11 FLOPs. Outside that range it is a guess.
    """
    return min(0.026, 0.016 * math.sqrt(cell.batch_tokens / 512) * 32 / cell.model.d_model)


def tiny_bpe_lr(cell: Cell) -> float:
    """min(0.055, 0.0245 · (B/320)^0.15 · (32/d)^0.9).

    Source: our own check on the demo's grid in 1,024 BPE tokens, docs/log.md: a table of rare tokens wants a
    higher rate than bytes do, and less of a change with the batch.
    """
    width = math.pow(32 / cell.model.d_model, 0.9)
    return min(0.055, 0.0245 * math.pow(cell.batch_tokens / 320, 0.15) * width)


def tiny_batch(n_tokens: float) -> float:
    """640 · (D/1e6)^0.75 tokens. Source: as `tiny_lr`; 650 to 2,400 steps a run on the demo grids."""
    return 640 * math.pow(n_tokens / 1e6, 0.75)


def tiny_bpe_batch(n_tokens: float) -> float:
    """960 · (D/1e6)^0.6 tokens. Source: as `tiny_bpe_lr`; 400 to 1,500 steps a run on the demo's grid."""
    return 960 * math.pow(n_tokens / 1e6, 0.6)


def step_law_lr(cell: Cell) -> float:
    """1.79 · N^-0.713 · D^0.307, N without embeddings.

    Source: Li et al. 2025 (Step Law, arXiv:2503.04715), equation 1; AdamW with a cosine that ends at 1e-5,
    N from 60M to 1B and D from 2B to 100B tokens.
    """
    return 1.79 * math.pow(n_params(cell.model).non_embedding, -0.713) * math.pow(cell.n_tokens, 0.307)


def step_law_batch(n_tokens: float) -> float:
    """0.58 · D^0.571 tokens. Source: as `step_law_lr`."""
    return 0.58 * math.pow(n_tokens, 0.571)


LR_RULES: dict[str, Callable[[Cell], float]] = {
    "tiny": tiny_lr,
    "tiny_bpe": tiny_bpe_lr,
    "step_law": step_law_lr,
}
BATCH_RULES: dict[str, Callable[[float], float]] = {
    "tiny": tiny_batch,
    "tiny_bpe": tiny_bpe_batch,
    "step_law": step_law_batch,
}


def lr_peak(optimizer: OptimizerConfig, cell: Cell) -> float:
    """The peak learning rate: a number as it is, a rule by name up to `lr_max`; times `lr_multiplier`."""
    if not isinstance(optimizer.lr, str):
        return optimizer.lr_multiplier * optimizer.lr
    by_rule = LR_RULES[optimizer.lr](cell)
    return optimizer.lr_multiplier * min(by_rule, optimizer.lr_max or by_rule)


def batch_tokens(rule: int | str, multiplier: float, n_tokens: float, seq_len: int) -> int:
    """Tokens per step in whole sequences: a number, or a rule applied to `n_tokens`, times `multiplier`."""
    wanted = multiplier * (BATCH_RULES[rule](n_tokens) if isinstance(rule, str) else rule)
    return max(1, round(wanted / seq_len)) * seq_len


def warmup_steps(schedule: ScheduleConfig, cell: Cell) -> int:
    """Steps of warmup: a fraction of the run, or a number of tokens, rounded up."""
    if schedule.warmup_frac is not None:
        return math.ceil(schedule.warmup_frac * cell.n_steps)
    return math.ceil((schedule.warmup_tokens or 0) / cell.batch_tokens)


def run_schedule(schedule: ScheduleConfig, cell: Cell) -> RunSchedule:
    """The schedule in steps of this run: fractions become steps, rounded up.

    What a schedule does not use gets one value, so that equal runs have equal keys.
    """
    return RunSchedule(
        name=schedule.name,
        warmup_steps=warmup_steps(schedule, cell),
        decay_steps=math.ceil((schedule.decay_frac or 0) * cell.n_steps),
        final_lr_frac=1.0 if schedule.name == "constant" else schedule.final_lr_frac,
    )
