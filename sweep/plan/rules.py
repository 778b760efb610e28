"""Hyperparameters as functions of size and tokens: named rules with their sources.

Legend: N parameters as defined by each rule, D tokens of the run, B tokens per step, C training FLOPs,
V vocabulary, d width. A learning rate and a batch may also be given as a power law, such as those of
`sweep fit-hparams`. A rule is an extrapolation outside of the range it was measured in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

from sweep.config import (
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    RunOptimizer,
    RunSchedule,
    ScheduleConfig,
)
from sweep.config.values import POWER_LAW, POWER_TERM
from sweep.errors import InputError
from sweep.flops import flops_per_token, n_params


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One budget at one shape, the argument of a rule."""

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
    with QK-norm and tied embeddings at 4e10 to 8e11 FLOPs. It is an extrapolation outside of that range.
    """
    return min(0.026, 0.016 * math.sqrt(cell.batch_tokens / 512) * 32 / cell.model.d_model)


def tiny_bpe_lr(cell: Cell) -> float:
    """min(0.055, 0.0245 · (B/320)^0.15 · (32/d)^0.9).

    Source: our own check on the demo's grid in 1,024 BPE tokens, docs/log.md: a table of rare tokens needs a
    higher rate than bytes do, and a weaker dependence on the batch.
    """
    width = math.pow(32 / cell.model.d_model, 0.9)
    return min(0.055, 0.0245 * math.pow(cell.batch_tokens / 320, 0.15) * width)


def tiny_batch(model: ModelConfig, n_tokens: float) -> float:
    """640 · (D/1e6)^0.75 tokens. Source: as `tiny_lr`; 650 to 2,400 steps a run on the demo grids."""
    return 640 * math.pow(n_tokens / 1e6, 0.75)


def tiny_bpe_batch(model: ModelConfig, n_tokens: float) -> float:
    """960 · (D/1e6)^0.6 tokens. Source: as `tiny_bpe_lr`; 400 to 1,500 steps a run on the demo's grid."""
    return 960 * math.pow(n_tokens / 1e6, 0.6)


def step_law_lr(cell: Cell) -> float:
    """1.79 · N^-0.713 · D^0.307, N without embeddings.

    Source: Li et al. 2025 (Step Law, arXiv:2503.04715), equation 1; AdamW with a cosine that ends at 1e-5,
    N from 60M to 1B and D from 2B to 100B tokens.
    """
    return 1.79 * math.pow(n_params(cell.model).non_embedding, -0.713) * math.pow(cell.n_tokens, 0.307)


def step_law_batch(model: ModelConfig, n_tokens: float) -> float:
    """0.58 · D^0.571 tokens. Source: as `step_law_lr`."""
    return 0.58 * math.pow(n_tokens, 0.571)


def deepseek_lr(cell: Cell) -> float:
    """0.3118 · C^-0.1250, C without embedding and head.

    Source: DeepSeek-AI 2024 (arXiv:2401.02954), section 3.1, equation 1, C = M·D by equation 2; AdamW with a
    multi-step schedule, C from 1e17 to 2e19.
    """
    return 0.3118 * math.pow(_deepseek_flops(cell.model, cell.n_tokens), -0.125)


def deepseek_batch(model: ModelConfig, n_tokens: float) -> float:
    """0.2920 · C^0.3271 tokens. Source: as `deepseek_lr`."""
    return 0.2920 * math.pow(_deepseek_flops(model, n_tokens), 0.3271)


def porian_lr(cell: Cell) -> float:
    """3.7 · N^-0.36, N with the head and without the embedding.

    Source: Porian et al. 2024 (arXiv:2406.19146), section 4, as quoted in Li et al. 2025 (arXiv:2503.04715),
    table 1; AdamW at a constant rate, N from 5M to 900M at D/N of 20.
    """
    return 3.7 * math.pow(_linear_params(cell.model), -0.36)


def porian_batch(model: ModelConfig, n_tokens: float) -> float:
    """0.7576 · N^0.703 tokens. Source: as `porian_lr`."""
    return 0.7576 * math.pow(_linear_params(model), 0.703)


def kaplan_lr(cell: Cell) -> float:
    """0.003239 - 0.0001395 · ln N, N without embeddings; never below 1e-5.

    Source: Kaplan et al. 2020, appendix D.6, equation D.1; Adam with batches of half a million tokens. They
    report that it breaks down at 1e10 parameters, where it reaches zero.
    """
    return max(1e-5, 0.003239 - 0.0001395 * math.log(n_params(cell.model).non_embedding))


def power_lines_weight_decay(cell: Cell, lr: float) -> float:
    """B / (lr · tau · D): AdamW's timescale is tau = 1.084 · (D/N)^-0.527 of the run, N all parameters.

    Source: Bergsma et al. 2025 (Power Lines, arXiv:2505.13738), section 2; that the timescale in epochs is
    the quantity to keep fixed, Wang & Aitchison 2024 (arXiv:2405.13698). N from 111M to 3.3B, D/N from 20 to
    1,280, under mup.
    """
    tau = 1.084 * math.pow(cell.n_tokens / n_params(cell.model).total, -0.527)
    return cell.batch_tokens / (lr * tau * cell.n_tokens)


def half_life_beta2(cell: Cell) -> float:
    """0.95^(B / 524,288): the half-life of the second moment is the same number of tokens at every batch.

    Source: Marek et al. 2025 (arXiv:2507.07101), section 3, anchored at the usual 0.95 for half a million
    tokens (Brown et al. 2020, appendix B): a half-life of 7 million tokens.
    """
    return math.pow(0.95, cell.batch_tokens / 524_288)


def n_params_warmup(cell: Cell) -> float:
    """N tokens, N with the head and without the embedding.

    Source: Porian et al. 2024 (arXiv:2406.19146), section 3.3: a fixed number of warmup tokens is too long
    for small models and moves the optimum.
    """
    return _linear_params(cell.model)


def _linear_params(model: ModelConfig) -> int:
    """Parameters that are multiplied with: blocks, norms and the head, tied or not."""
    return n_params(model).non_embedding + model.vocab_size * model.d_model


def _deepseek_flops(model: ModelConfig, n_tokens: float) -> float:
    """M·D, M the FLOPs of a token without the head: 72 L d² + 12 L d T where the MLP has ratio 4."""
    return (flops_per_token(model) - 6 * model.d_model * model.vocab_size) * n_tokens


LR_RULES: dict[str, Callable[[Cell], float]] = {
    "tiny": tiny_lr,
    "tiny_bpe": tiny_bpe_lr,
    "step_law": step_law_lr,
    "deepseek": deepseek_lr,
    "porian": porian_lr,
    "kaplan": kaplan_lr,
}
BATCH_RULES: dict[str, Callable[[ModelConfig, float], float]] = {
    "tiny": tiny_batch,
    "tiny_bpe": tiny_bpe_batch,
    "step_law": step_law_batch,
    "deepseek": deepseek_batch,
    "porian": porian_batch,
}
WEIGHT_DECAY_RULES: dict[str, Callable[[Cell, float], float]] = {"power_lines": power_lines_weight_decay}
BETA2_RULES: dict[str, Callable[[Cell], float]] = {"half_life": half_life_beta2}
WARMUP_RULES: dict[str, Callable[[Cell], float]] = {"n_params": n_params_warmup}

RULES: Mapping[str, Mapping[str, Callable[..., float]]] = {
    "batch_tokens": BATCH_RULES,
    "optimizer.lr": LR_RULES,
    "optimizer.beta2": BETA2_RULES,
    "optimizer.weight_decay": WEIGHT_DECAY_RULES,
    "schedule.warmup_tokens": WARMUP_RULES,
}
"""The rules that each key of an experiment may name."""


POWER_LAW_KEYS = ("batch_tokens", "optimizer.lr")
"""Keys that may be a power law instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerLawRule:
    """factor · N^a · N_non_embedding^b · D^c, N all unique trainable parameters."""

    factor: float
    exponents: tuple[tuple[str, float], ...]  # by N, N_non_embedding or D

    def at(self, model: ModelConfig, n_tokens: float) -> float:
        """Return the value for a model and its tokens."""
        count = n_params(model)
        sizes = {"N": count.total, "N_non_embedding": count.non_embedding, "D": n_tokens}
        return self.factor * math.prod(math.pow(sizes[name], power) for name, power in self.exponents)


@cache
def power_law_rule(text: str) -> PowerLawRule | None:
    """Return the rule that a formula gives; None for a name.

    >>> power_law_rule("0.58 * D^0.571")
    PowerLawRule(factor=0.58, exponents=(('D', 0.571),))
    """
    match = POWER_LAW.fullmatch(text)
    if match is None:
        return None
    terms = tuple((name, float(power)) for name, power in POWER_TERM.findall(match[2]))
    return PowerLawRule(factor=float(match[1]), exponents=terms)


def check_rules(experiment: ExperimentConfig) -> None:
    """Refuse a rule that is not registered, and a power law where it is not allowed or not above zero.

    Raises:
        InputError: With the names of the registered rules.
    """
    for key, registry in RULES.items():
        value = attrgetter(key)(experiment)
        if not isinstance(value, str) or value in registry:
            continue
        law = power_law_rule(value) if key in POWER_LAW_KEYS else None
        if law is None or law.factor <= 0:
            more = ", or a power law" if key in POWER_LAW_KEYS else ""
            raise InputError(
                f"{key}={value} is not valid: give a number, or a rule ({', '.join(registry)}){more}"
            )


def lr_peak(optimizer: OptimizerConfig, cell: Cell) -> float:
    """Return the peak learning rate: a number, or a rule bounded by `lr_max`; times `lr_multiplier`."""
    if not isinstance(optimizer.lr, str):
        return optimizer.lr_multiplier * optimizer.lr
    law = power_law_rule(optimizer.lr)
    by_rule = LR_RULES[optimizer.lr](cell) if law is None else law.at(cell.model, cell.n_tokens)
    return optimizer.lr_multiplier * min(by_rule, optimizer.lr_max or by_rule)


def weight_decay(optimizer: OptimizerConfig, cell: Cell) -> float:
    """Return the weight decay: a number, or a rule's, which depends on the learning rate."""
    if not isinstance(optimizer.weight_decay, str):
        return optimizer.weight_decay
    return WEIGHT_DECAY_RULES[optimizer.weight_decay](cell, lr_peak(optimizer, cell))


def beta2(optimizer: OptimizerConfig, cell: Cell) -> float:
    """Return the decay of AdamW's second moment: a number, or a rule's."""
    return BETA2_RULES[optimizer.beta2](cell) if isinstance(optimizer.beta2, str) else optimizer.beta2


def batch_tokens(
    rule: int | str, multiplier: float, n_tokens: float, model: ModelConfig, *, power_of_two: bool = False
) -> int:
    """Return tokens per step in whole sequences: a number, or a rule of `n_tokens`, times `multiplier`.

    With `power_of_two`, a rule's batch is rounded to the power of two of sequences that is nearest in ratio;
    a number is not.
    """
    wanted = multiplier * (_batch_by_rule(rule, model, n_tokens) if isinstance(rule, str) else rule)
    size = max(1.0, wanted / model.seq_len)
    nearest = 2 ** round(math.log2(size)) if power_of_two and isinstance(rule, str) else round(size)
    return nearest * model.seq_len


def _batch_by_rule(rule: str, model: ModelConfig, n_tokens: float) -> float:
    law = power_law_rule(rule)
    return BATCH_RULES[rule](model, n_tokens) if law is None else law.at(model, n_tokens)


def run_optimizer(optimizer: OptimizerConfig, cell: Cell, width_ratio: float) -> RunOptimizer:
    """Return the optimizer of a run in numbers; `width_ratio` is mup's, 1 in the standard parametrization.

    Fields that an optimizer does not use get one fixed value, so that equal runs have equal keys.
    """
    uses_adam = optimizer.name != "sgd"
    of_muon: dict[str, Any] = {"ns_steps": optimizer.ns_steps, "muon_scaling": optimizer.muon_scaling}
    return RunOptimizer(
        name=optimizer.name,
        lr_peak=lr_peak(optimizer, cell),
        beta1=optimizer.beta1 if uses_adam else 0.0,
        beta2=beta2(optimizer, cell) if uses_adam else 0.0,
        eps=optimizer.eps if uses_adam else 1.0,
        weight_decay=weight_decay(optimizer, cell),
        grad_clip=optimizer.grad_clip,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        width_ratio=width_ratio,
        **(of_muon if optimizer.name == "muon" else {}),
    )


def warmup_tokens(schedule: ScheduleConfig, cell: Cell) -> float:
    """Return the tokens of a warmup that is not a fraction of the run: a number, or a rule's."""
    if isinstance(schedule.warmup_tokens, str):
        return WARMUP_RULES[schedule.warmup_tokens](cell)
    return schedule.warmup_tokens or 0.0


def warmup_steps(schedule: ScheduleConfig, cell: Cell) -> int:
    """Return the steps of warmup: a fraction of the run, or a number of tokens, rounded up."""
    if schedule.warmup_frac is not None:
        return math.ceil(schedule.warmup_frac * cell.n_steps)
    return math.ceil(warmup_tokens(schedule, cell) / cell.batch_tokens)


def run_schedule(schedule: ScheduleConfig, cell: Cell) -> RunSchedule:
    """Return the schedule in steps of this run; fractions are rounded up to steps.

    Fields that a schedule does not use get one fixed value, so that equal runs have equal keys.
    """
    return RunSchedule(
        name=schedule.name,
        warmup_steps=warmup_steps(schedule, cell),
        decay_steps=math.ceil((schedule.decay_frac or 0) * cell.n_steps),
        final_lr_frac=1.0 if schedule.name == "constant" else schedule.final_lr_frac,
    )
