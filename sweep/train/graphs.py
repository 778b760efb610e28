"""Capture of CUDA graphs, and captured backward passes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # backward passes before a capture, as torch's notes on CUDA graphs require

Pool = Any  # a memory pool of CUDA graphs


@functools.cache
def capture_stream() -> torch.cuda.Stream:
    """Return the stream of all warm-ups and captures: cuBLAS keeps a workspace for each stream."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def capture(graph: torch.cuda.CUDAGraph, pool: Pool | None = None) -> Iterator[None]:
    """Capture the current stream; other threads, as the one that watches ranks, may call CUDA meanwhile."""
    stream, current = capture_stream(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            yield
    finally:
        torch.cuda.set_stream(current)  # torch stays on the other stream when a capture fails


class PassGraph:
    """A captured backward pass over a fixed number of sequences: tokens are copied in, the loss copied out.

    It accumulates into the gradient tensors that the parameters held at capture, as its warm-up does.
    """

    def __init__(self, backward: Callable[[Tensor], Tensor], tokens: Tensor, pool: Pool | None) -> None:
        self.tokens = tokens.clone()
        side = capture_stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    backward(self.tokens)
        finally:  # work that is queued when a pass fails still writes to gradients
            torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with capture(self.graph, pool):
            self.loss = backward(self.tokens)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Replay over `tokens`; the loss is a copy, since the next replay overwrites the original."""
        self.tokens.copy_(tokens)
        self.graph.replay()
        return self.loss.clone()
