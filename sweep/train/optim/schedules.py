"""Learning-rate schedules, as pure functions of the step.

All take the step from 0 and give a fraction of the peak: a linear warmup to 1 over `warmup_steps` (Goyal et
al. 2017, section 2.2), whose step 0 moves already, then what each says. `final_lr_frac` is what the step
after the last would use: a schedule ends where the run's tokens end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sweep.config import RunSchedule


def cosine(step: int, *, n_steps: int, warmup_steps: int, decay_steps: int, final_lr_frac: float) -> float:
    """After the warmup, half a cosine from 1 to `final_lr_frac`; `decay_steps` is not used.

    Source: Loshchilov & Hutter 2017 (SGDR), equation 5; one that is as long as the run, Hoffmann et al. 2022,
    section 3.1 and appendix B.

    >>> [cosine(s, n_steps=4, warmup_steps=2, decay_steps=0, final_lr_frac=0.0) for s in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = (1 + math.cos(math.pi * _done(step, warmup_steps, n_steps))) / 2
    return final_lr_frac + (1 - final_lr_frac) * left


def linear(step: int, *, n_steps: int, warmup_steps: int, decay_steps: int, final_lr_frac: float) -> float:
    """After the warmup, a straight line from 1 to `final_lr_frac`; `decay_steps` is not used.

    Source: Bergsma et al. 2025 (arXiv:2502.15938), who find a line to zero better than a cosine to a tenth.

    >>> [linear(s, n_steps=6, warmup_steps=2, decay_steps=0, final_lr_frac=0.0) for s in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = 1 - _done(step, warmup_steps, n_steps)
    return final_lr_frac + (1 - final_lr_frac) * left


def constant(step: int, *, n_steps: int, warmup_steps: int, decay_steps: int, final_lr_frac: float) -> float:
    """After the warmup, the peak for ever; nothing else is used.

    Source: the first two stages of `wsd`. Its losses lie above those of schedules that decay: a fit to such
    runs is a law of undecayed models (Hägele et al. 2024, section 3).

    >>> [constant(s, n_steps=4, warmup_steps=2, decay_steps=0, final_lr_frac=1.0) for s in range(5)]
    [0.5, 1.0, 1.0, 1.0, 1.0]
    """
    return (step + 1) / warmup_steps if step < warmup_steps else 1.0


def wsd(step: int, *, n_steps: int, warmup_steps: int, decay_steps: int, final_lr_frac: float) -> float:
    """Warmup, stable, decay: the peak until `decay_steps` are left, then 1 - sqrt(x), x from 0 to 1.

    Source: the three stages, Hu et al. 2024 (MiniCPM, arXiv:2404.06395), section 4; the form of the decay,
    better than a line, and a fifth of the steps for it, Hägele et al. 2024 (arXiv:2405.18392), section 3.

    >>> [wsd(s, n_steps=7, warmup_steps=2, decay_steps=4, final_lr_frac=0.0) for s in (0, 1, 2, 3, 4, 7)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = 1 - math.sqrt(_done(step, n_steps - decay_steps, n_steps))
    return final_lr_frac + (1 - final_lr_frac) * left


def _done(step: int, start: int, end: int) -> float:
    """How far `step` is on the way from `start` to `end`: 0 before it, 1 after it."""
    return min(1.0, max(0.0, (step - start) / (end - start)))


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "wsd": wsd,
}


def lr_frac(step: int, schedule: RunSchedule, n_steps: int) -> float:
    """The fraction of the peak learning rate that `step` of a run of `n_steps` uses."""
    return SCHEDULES[schedule.name](
        step,
        n_steps=n_steps,
        warmup_steps=schedule.warmup_steps,
        decay_steps=schedule.decay_steps,
        final_lr_frac=schedule.final_lr_frac,
    )
