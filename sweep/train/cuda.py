"""Training steps on a CUDA device: compiled where that pays, captured as CUDA graphs if small.

`CudaStep.choices` records how the steps are executed, so that a resumed run executes them the same way.
"""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sweep import flops
from sweep.config import RunConfig
from sweep.errors import is_out_of_memory
from sweep.plan.estimate import LOGITS_AT_ONCE, LOGITS_COMPILED
from sweep.train.graphs import PassGraph, capture
from sweep.train.models.cross_entropy import chunk_loss, chunk_rows, fusible_chunk_loss, summed_cross_entropy
from sweep.train.models.gpt import GPT
from sweep.train.update import FlatUpdate, Update

GRAPH_BELOW_PARAMS = 30_000_000
"""Non-embedding parameters up to which a step is bound by kernel launches and a CUDA graph pays off."""

MAX_SHAPES = 256  # compiled shapes per process
FLASH, MATH = SDPBackend.FLASH_ATTENTION, SDPBackend.MATH
FASTEST_FIRST = [SDPBackend.CUDNN_ATTENTION, FLASH, SDPBackend.EFFICIENT_ATTENTION, MATH]
REPEATABLE = [FLASH, MATH]  # with a deterministic backward pass

Function = TypeVar("Function", bound=Callable[..., object])


def run_block(block: nn.Module, x: Tensor, rotary: Tensor | None) -> Tensor:
    """Apply one block with the fastest attention kernel that supports its shapes.

    The choice is made inside the function, so that it is part of the compiled code.
    """
    with sdpa_kernel(FASTEST_FIRST, set_priority=True):
        return block(x, rotary)


def run_block_without_cudnn(block: nn.Module, x: Tensor, rotary: Tensor | None) -> Tensor:
    """Apply one block as `run_block`, where cuDNN has no working kernel for its shapes."""
    with sdpa_kernel(FASTEST_FIRST[1:], set_priority=True):
        return block(x, rotary)


def run_block_repeatably(block: nn.Module, x: Tensor, rotary: Tensor | None) -> Tensor:
    """Apply one block with an attention kernel that repeats bit for bit under deterministic algorithms."""
    with sdpa_kernel(REPEATABLE, set_priority=True):
        return block(x, rotary)


@functools.cache
def compiled(function: Function) -> Function:
    """Return `function` under torch.compile, shared by all runs of the process.

    Parameters are inputs of the compiled code: one compilation of `run_block` serves all layers and models of
    a width and micro-batch.
    """
    import torch._dynamo.config  # `import torch` alone does not load it

    torch._dynamo.config.recompile_limit = MAX_SHAPES
    torch._dynamo.config.accumulated_recompile_limit = MAX_SHAPES
    return torch.compile(function, dynamic=False, fullgraph=True)  # type: ignore[return-value]


class CudaStep:
    """Backward passes and updates of one run; once warm, they never wait for the device."""

    def __init__(
        self,
        model: GPT,
        run: RunConfig,
        device: torch.device,
        choices: dict[str, str | int | float],
        *,
        compile_blocks: bool = True,
        deterministic: bool = False,
    ) -> None:
        """Compile and capture on first use; `choices` gains "compile" and "graph".

        Compiled code checks the addresses of parameters only once, and all layers share it. So models with
        weights in flat storage at other addresses than multiples of 16 bytes are not compiled, as of widths
        that are no multiples of four.
        """
        self.model, self.run, self.device = model, run, device
        self.choices, self._block = choices, run_block_repeatably if deterministic else run_block
        small = flops.n_params(run.model).non_embedding <= GRAPH_BELOW_PARAMS
        is_aligned = all(parameter.data_ptr() % 16 == 0 for parameter in model.parameters())
        choices |= {"compile": compile_blocks and is_aligned and not deterministic, "graph": small}
        self.compile_s = 0.0
        self._graphs: dict[int, PassGraph] = {}  # by sequences per micro-batch
        self._warm: set[int] = set()  # micro-batch sizes that are compiled and captured
        self._n_updates = 0
        self._update_graph: torch.cuda.CUDAGraph | None = None

    def backward(self, tokens: Tensor) -> Tensor:
        """Accumulate the gradient of `tokens`, shape (B, T + 1); return their part of the mean loss."""
        size = tokens.size(0)
        if size not in self._warm:
            with self._compiling():
                self._prepare(tokens)
            self._warm.add(size)
        return self._graphs[size](tokens) if size in self._graphs else self._eager(tokens)

    def update(self, update: Update) -> None:
        """Apply `update`: as a CUDA graph if the backward passes are graphs.

        The graph holds the addresses of flat storage; learning rates are written to the device before each
        replay. The first update runs eagerly, as a warm-up for the capture, and all do if the capture fails.
        """
        if self._n_updates == 1 and self.choices["graph"]:
            self._update_graph = self._captured(update)
        self._n_updates += 1
        if self._update_graph is None or not self.choices["graph"]:
            update()
            return
        assert isinstance(update, FlatUpdate)
        update.load_rates()
        self._update_graph.replay()

    def _captured(self, update: Update) -> torch.cuda.CUDAGraph | None:
        """Capture the update; None with a warning if that fails."""
        assert isinstance(update, FlatUpdate), "a graph writes to the gradients of its capture"
        graph = torch.cuda.CUDAGraph()
        try:
            with self._compiling(), capture(graph):
                update.apply()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            _warn_given_up("capturing the update in a CUDA graph", error)
            return None
        return graph

    @contextlib.contextmanager
    def _compiling(self) -> Iterator[None]:
        """Count the time of the block as `compile_s`, without work queued on the device before."""
        torch.cuda.synchronize(self.device)
        started = time.monotonic()
        yield
        torch.cuda.synchronize(self.device)
        self.compile_s += time.monotonic() - started

    def _prepare(self, tokens: Tensor) -> None:
        """Compile and capture for the size of `tokens`; the gradients are left as they were.

        What fails is given up for the run, with a warning.
        """
        kept = [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        while True:
            try:
                self._run_first(tokens)
                return
            except Exception as error:
                failed = None if is_out_of_memory(error) else self._give_up(str(error).lower())
                if failed is None:
                    raise
                _warn_given_up(failed, error)
            finally:
                _put_back(self.model, kept)

    def _give_up(self, error: str) -> str | None:
        """Switch off what an error names, else compilation; return its name, None if nothing is left."""
        if "cudnn" in error and self._block is run_block:
            self._block = run_block_without_cudnn
            return "cuDNN's attention"
        if "captur" in error and self.choices["graph"]:
            self.choices["graph"] = False
            return "capturing a CUDA graph"
        if self.choices["compile"]:
            self.choices["compile"] = False
            return "torch.compile"
        return None

    def _run_first(self, tokens: Tensor) -> None:
        if not self.choices["graph"]:
            self._eager(tokens)
            return
        # replays take turns, so their memory is shared
        pool = next((known.graph.pool() for known in self._graphs.values()), None)
        self._graphs[tokens.size(0)] = PassGraph(self._eager, tokens, pool)

    def release(self) -> None:
        """Free the memory of the captured backward passes."""
        self._graphs.clear()
        self._warm.clear()

    def _eager(self, tokens: Tensor) -> Tensor:
        bf16, vocab_size = self.run.precision == "bf16", self.run.model.vocab_size
        block, chunk, at_once = self._block, chunk_loss, LOGITS_AT_ONCE["cuda"]
        if self.choices["compile"]:
            block, chunk, at_once = compiled(block), compiled(fusible_chunk_loss), LOGITS_COMPILED
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            state = self.model.hidden(tokens[:, :-1], block).flatten(0, 1)
        n_rows = chunk_rows(state.size(0), vocab_size, at_once)
        total = summed_cross_entropy(
            state, self.model.head.weight, tokens[:, 1:].flatten(), n_rows=n_rows, bf16=bf16, chunk=chunk
        )
        loss = total / self.run.batch_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def _put_back(model: GPT, gradients: list[Tensor | None]) -> None:
    """Restore gradients in place; None becomes zero."""
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if parameter.grad is not None:
            parameter.grad.zero_() if gradient is None else parameter.grad.copy_(gradient)


def _warn_given_up(name: str, error: Exception) -> None:
    problem = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(f"{name} failed, continuing without it: {problem}", RuntimeWarning, stacklevel=3)
