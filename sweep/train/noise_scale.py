"""Gradient noise scale of a run, from gradients at two batch sizes at a few late steps.

Legend: G the gradient of the expected loss, Σ the covariance of one token's gradient, B a batch in tokens,
G_B the gradient of a batch's mean loss, E|G_B|² = |G|² + tr(Σ)/B. The simple noise scale is
B_simple = tr(Σ)/|G|²: far below it a larger batch is as good as more steps, far above it is wasted.

Source: McCandlish et al. 2018 (arXiv:1812.06162), section 2.2 and appendix A.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sweep.config import RunConfig
from sweep.errors import is_out_of_memory
from sweep.plan.estimate import NOISE_PARTS
from sweep.train.models.gpt import GPT
from sweep.train.step import Rows

WINDOW_FRAC = 0.2  # of the steps, the last ones: the noise scale grows as the loss falls
MEASURED_FRAC = 0.02  # of the run's steps are measured; each costs about one more step
MIN_MEASURED, MAX_MEASURED = 8, 64


def noise_steps(n_steps: int) -> tuple[int, ...]:
    """Return the steps to measure, from 0: evenly over the last fifth, a fiftieth of all, 8 to 64 of them.

    >>> noise_steps(40)
    (32, 33, 34, 35, 36, 37, 38, 39)
    """
    start = int((1 - WINDOW_FRAC) * n_steps)
    wanted = min(MAX_MEASURED, max(MIN_MEASURED, int(MEASURED_FRAC * n_steps)))
    count = min(wanted, n_steps - start)
    return tuple(start + index * (n_steps - start) // count for index in range(count))


def moments(small: float, large: float, b_small: float, b_large: float) -> tuple[float, float]:
    """Return unbiased estimates of |G|² and tr(Σ), from E|G_B|² at two batch sizes in tokens.

    |G|² = (B_large |G_large|² - B_small |G_small|²) / (B_large - B_small),
    tr(Σ) = (|G_small|² - |G_large|²) / (1/B_small - 1/B_large).

    Source: McCandlish et al. 2018, appendix A.1.

    >>> moments(3 + 8 / 2, 3 + 8 / 4, 2, 4)  # |G|² = 3, tr(Σ) = 8
    (3.0, 8.0)
    """
    squared_gradient = (b_large * large - b_small * small) / (b_large - b_small)
    trace = (small - large) / (1 / b_small - 1 / b_large)
    return squared_gradient, trace


class NoiseScale:
    """Measurement of the noise scale during training; weights and their gradients stay unchanged.

    Each measurement covers the whole batch. With several ranks only rank 0 measures; sharded runs do not.
    """

    def __init__(self, model: GPT, run: RunConfig, rows: Rows, micro_batch_size: int | None) -> None:
        self.model, self.run, self.rows = model, run, rows
        size = run.batch_size
        self.part_size = max(1, min(micro_batch_size or size, size // NOISE_PARTS))
        self.steps = frozenset(noise_steps(run.n_steps)) if size >= 2 * self.part_size else frozenset()
        self.sums = torch.zeros(2, dtype=torch.float64)  # of estimates of |G|² and tr(Σ)

    def measure(self, step: int) -> None:
        """Add the estimates at `step`'s batch and the current weights, if that step is to be measured.

        If two more sets of gradients do not fit in memory, measuring stops.
        """
        if step not in self.steps:
            return
        try:
            small, large = self._squared_norms(step)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.steps = frozenset()
            return
        b_small = self.part_size * self.run.model.seq_len
        b_large = b_small * (self.run.batch_size // self.part_size)
        self.sums += torch.tensor(moments(small, large, b_small, b_large), dtype=torch.float64)

    def b_simple_tokens(self) -> float | None:
        """Return tr(Σ)/|G|², each averaged over the measured steps; None if an average is not positive."""
        squared_gradient, trace = self.sums.tolist()
        return trace / squared_gradient if squared_gradient > 0 and trace > 0 else None

    def _squared_norms(self, step: int) -> tuple[float, float]:
        """Return the mean |G_B|² of a batch's parts and |G_B|² of their mean, without incomplete parts."""
        n_parts = self.run.batch_size // self.part_size
        mean: list[Tensor] = []
        small = 0.0
        for index in range(n_parts):
            gradients = self._gradients(step, index * self.part_size)
            small += _squared_norm(gradients) / n_parts
            torch._foreach_div_(gradients, float(n_parts))
            if mean:
                torch._foreach_add_(mean, gradients)
            else:
                mean = gradients
            del gradients  # otherwise the gradients of two parts would be in memory
        return small, _squared_norm(mean)

    def _gradients(self, step: int, start: int) -> list[Tensor]:
        device = next(self.model.parameters()).device
        tokens = torch.from_numpy(self.rows(step, start, start + self.part_size)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.run.precision == "bf16"):
            loss = self.model.total_loss(tokens[:, :-1], tokens[:, 1:])
        return list(torch.autograd.grad(loss / tokens[:, 1:].numel(), list(self.model.parameters())))


def _squared_norm(gradients: list[Tensor]) -> float:
    norms = torch.stack(torch._foreach_norm(gradients)).double()
    return float(norms.square().sum())
