"""Learning-rate schedules as pure functions of the step.

All take the step from 0 and return a fraction of the peak: a linear warmup to 1 over `warmup_steps` (Goyal et
al. 2017, section 2.2), with a positive rate at step 0, then the schedule's own form. `final_lr_frac` is the
rate of the step after the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sweep.config import RunSchedule


def cosine(step: int, *, n_steps: int, warmup_steps: int, decay_steps: int, final_lr_frac: float) -> float:
    """Return half a cosine from 1 to `final_lr_frac` after the warmup; `decay_steps` is not used.

    Source: Loshchilov & Hutter 2017 (SGDR), equation 5; one cosine over the whole run, Hoffmann et al. 2022,
    section 3.1 and appendix B.

    >>> [cosine(s, n_steps=4, warmup_steps=2, decay_steps=0, final_lr_frac=0.0) for s in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = (1 + math.cos(math.pi * _done(step, warmup_steps, n_steps))) / 2
    return final_lr_frac + (1 - final_lr_frac) * left


def linear(step: int, *, n_steps: int, warmup_steps: int, decay_steps: int, final_lr_frac: float) -> float:
    """Return a straight line from 1 to `final_lr_frac` after the warmup; `decay_steps` is not used.

    Source: Bergsma et al. 2025 (arXiv:2502.15938), which finds a line to 0 better than a cosine to a tenth.

    >>> [linear(s, n_steps=6, warmup_steps=2, decay_steps=0, final_lr_frac=0.0) for s in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = 1 - _done(step, warmup_steps, n_steps)
    return final_lr_frac + (1 - final_lr_frac) * left


def constant(step: int, *, n_steps: int, warmup_steps: int, decay_steps: int, final_lr_frac: float) -> float:
    """Return the peak after the warmup.

    Source: the first two stages of `wsd`. Losses are above those of schedules that decay: a fit to such runs
    is a law of undecayed models (Hägele et al. 2024, section 3).

    >>> [constant(s, n_steps=4, warmup_steps=2, decay_steps=0, final_lr_frac=1.0) for s in range(5)]
    [0.5, 1.0, 1.0, 1.0, 1.0]
    """
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


def wsd(step: int, *, n_steps: int, warmup_steps: int, decay_steps: int, final_lr_frac: float) -> float:
    """Return warmup, stable, decay: the peak until `decay_steps` are left, then 1 - sqrt(x), x from 0 to 1.

    Source: the three stages, Hu et al. 2024 (MiniCPM, arXiv:2404.06395), section 4; the form of the decay,
    better than linear, over a fifth of the steps, Hägele et al. 2024 (arXiv:2405.18392), section 3.

    >>> [wsd(s, n_steps=7, warmup_steps=2, decay_steps=4, final_lr_frac=0.0) for s in (0, 1, 2, 3, 4, 7)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = 1 - math.sqrt(_done(step, n_steps - decay_steps, n_steps))
    return final_lr_frac + (1 - final_lr_frac) * left


def _done(step: int, start: int, end: int) -> float:
    """Return the fraction of the way from `start` to `end` at `step`, clipped to [0, 1]."""
    return min(1.0, max(0.0, (step - start) / (end - start)))


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "wsd": wsd,
}


def lr_frac(step: int, schedule: RunSchedule, n_steps: int) -> float:
    """Return the fraction of the peak learning rate at `step` of a run of `n_steps`."""
    return SCHEDULES[schedule.name](
        step,
        n_steps=n_steps,
        warmup_steps=schedule.warmup_steps,
        decay_steps=schedule.decay_steps,
        final_lr_frac=schedule.final_lr_frac,
    )
