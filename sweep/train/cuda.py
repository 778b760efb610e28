"""Training steps on a CUDA device: compiled, and captured as CUDA graphs where launches dominate.

Choices made by timing are kept in `CudaStep.choices`, so that a resumed run uses the same kernels.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sweep import flops
from sweep.config import RunConfig
from sweep.errors import is_out_of_memory
from sweep.plan.estimate import LOGITS_AT_ONCE
from sweep.train.models.cross_entropy import chunk_rows, summed_cross_entropy
from sweep.train.models.gpt import GPT
from sweep.train.update import FlatUpdate, Update

GRAPH_BELOW_PARAMS = 30_000_000
"""Non-embedding parameters up to which a step is bound by kernel launches and a CUDA graph pays off."""

WARM_UP = 3  # backward passes before a capture, as torch's notes on CUDA graphs require
MAX_SHAPES = 256  # compiled shapes per process
ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
CHUNK_ELEMENTS = (2**25, 2**27, LOGITS_AT_ONCE["cuda"])  # candidates for the logits per chunk

Hidden = Callable[[GPT, Tensor], Tensor]
_compiled: dict[str, Hidden] = {}  # by attention kernel; shared by all runs of the process


def compiled_hidden(attention: str) -> Hidden:
    """Return `GPT.hidden` under torch.compile; models of one shape and micro-batch share one compilation.

    Parameters are inputs of the compiled code, so another run's model does not compile again. The cache on
    disk, at TORCHINDUCTOR_CACHE_DIR, is shared by all workers. Compiled code keeps the attention kernel of
    its compilation, which is part of neither torch's guards nor the key of its autograd cache: so each kernel
    has a function of its own, and the autograd cache is off.
    """
    if attention not in _compiled:
        import torch._dynamo.config
        import torch._functorch.config  # `import torch` alone does not load these two

        torch._functorch.config.enable_autograd_cache = False
        for name in ("recompile_limit", "accumulated_recompile_limit"):
            if hasattr(torch._dynamo.config, name):
                setattr(torch._dynamo.config, name, MAX_SHAPES)
        _compiled[attention] = torch.compile(hidden_under(attention), dynamic=False, fullgraph=True)
    return _compiled[attention]


def hidden_under(attention: str) -> Hidden:
    """Return a copy of `GPT.hidden` with its own code object, by which torch keys compiled code."""
    code = GPT.hidden.__code__.replace(co_name=f"hidden_under_{attention}")
    return FunctionType(code, GPT.hidden.__globals__, code.co_name)


class CudaStep:
    """Backward passes and updates of one run; once warm, they never wait for the device."""

    def __init__(
        self,
        model: GPT,
        run: RunConfig,
        device: torch.device,
        choices: dict[str, str | int | float],
        *,
        deterministic: bool = False,
    ) -> None:
        self.model, self.run, self.device = model, run, device
        self.choices, self.deterministic = choices, deterministic
        self.compile_s = 0.0
        self._graphs: dict[int, _Graph] = {}  # by sequences per micro-batch
        self._warm: set[int] = set()  # micro-batch sizes that are compiled and captured
        self._has_updated = False
        self._update_graph: torch.cuda.CUDAGraph | None = None

    def backward(self, tokens: Tensor) -> Tensor:
        """Accumulate the gradient of `tokens`, shape (B, T + 1); return their part of the mean loss."""
        if tokens.size(0) in self._warm:
            return self._pass(tokens)
        with self._compiling():
            if "attention" not in self.choices:
                self._choose(tokens.size(0))
            loss = self._first_pass(tokens)
        self._warm.add(tokens.size(0))
        return loss

    def update(self, update: Update) -> None:
        """Apply `update`: as a CUDA graph if the backward passes are graphs and the update is flat.

        The graph holds the addresses of flat storage; learning rates are written to the device before each
        replay. The first update runs eagerly, as a warm-up for the capture.
        """
        if not (self.choices["graph"] and isinstance(update, FlatUpdate)):
            update()
            return
        if not self._has_updated:
            self._has_updated = True
            update()
            return
        if self._update_graph is None:
            graph = torch.cuda.CUDAGraph()
            with self._compiling(), capture(graph):
                update.apply()
            self._update_graph = graph
        update.load_rates()
        self._update_graph.replay()

    @contextlib.contextmanager
    def _compiling(self) -> Iterator[None]:
        """Count the time of the block as `compile_s`, without work queued on the device before."""
        torch.cuda.synchronize(self.device)
        started = time.monotonic()
        yield
        torch.cuda.synchronize(self.device)
        self.compile_s += time.monotonic() - started

    def _first_pass(self, tokens: Tensor) -> Tensor:
        """Run the first pass of a micro-batch size; if compilation fails, continue without it."""
        if not self.choices["compile"]:
            return self._pass(tokens)
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        kept = _copied_gradients(self.model)
        try:
            return self._pass(tokens)
        except (TorchDynamoException, InductorError) as error:
            if is_out_of_memory(error):
                raise
            first_line = (str(error).strip() or "no message").splitlines()[0]
            problem = f"{type(error).__name__}: {first_line}"
        warnings.warn(f"torch.compile failed, continuing without it: {problem}", RuntimeWarning, stacklevel=2)
        self.choices["compile"] = False
        _put_back(self.model, kept)
        return self._pass(tokens)

    def _pass(self, tokens: Tensor) -> Tensor:
        if not self.choices["graph"]:
            return self._eager(tokens)
        graph = self._graphs.get(tokens.size(0))
        if graph is None:
            graph = self._graphs[tokens.size(0)] = _Graph(self._eager, self.model, tokens)
        return graph(tokens)

    def release(self) -> None:
        """Free the memory of the captured backward passes."""
        self._graphs.clear()
        self._warm.clear()

    def _eager(self, tokens: Tensor) -> Tensor:
        bf16 = self.run.precision == "bf16"
        attention = str(self.choices["attention"])
        hidden = compiled_hidden(attention) if self.choices["compile"] else GPT.hidden
        with sdpa_kernel(ATTENTION[attention]):
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16, cache_enabled=False):
                state = hidden(self.model, tokens[:, :-1]).flatten(0, 1)
            targets = tokens[:, 1:].flatten()
            n_rows = min(int(self.choices["head_rows"]), state.size(0))
            total = summed_cross_entropy(state, self.model.head.weight, targets, n_rows=n_rows, bf16=bf16)
            loss = total / self.run.batch_tokens
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _choose(self, n_sequences: int) -> None:
        """Choose kernels by timing them, or fixed ones in deterministic mode."""
        model, fastest = self.run.model, not self.deterministic
        n_rows = n_sequences * model.seq_len
        small = flops.n_params(model).non_embedding <= GRAPH_BELOW_PARAMS
        self.choices |= {
            "compile": fastest,
            "graph": fastest and small,
            "attention": self._fastest_attention(n_sequences) if fastest else "math",
            "head_rows": self._fastest_head(n_rows)
            if fastest
            else chunk_rows(n_rows, model.vocab_size, CHUNK_ELEMENTS[0]),
        }

    def _fastest_attention(self, n_sequences: int) -> str:
        model = self.run.model
        dtype = torch.bfloat16 if self.run.precision == "bf16" else torch.float32
        shape = (n_sequences, model.n_heads, model.seq_len, model.head_dim)
        query, key, value = (
            torch.randn(shape, device=self.device, dtype=dtype, requires_grad=True) for _ in range(3)
        )

        def attend() -> None:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            torch.autograd.grad(mixed.sum(), (query, key, value))

        seconds = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kernels that do not support the shape warn before they fail
            for name, backend in ATTENTION.items():
                with contextlib.suppress(RuntimeError), sdpa_kernel(backend):
                    seconds[name] = _seconds(attend)
        if not seconds:
            raise torch.OutOfMemoryError(f"no attention kernel fits in memory for {n_sequences} sequences")
        return min(seconds, key=seconds.__getitem__)

    def _fastest_head(self, n_rows: int) -> int:
        model = self.run.model
        hidden = torch.randn(n_rows, model.d_model, device=self.device, requires_grad=True)
        weight = torch.randn(model.vocab_size, model.d_model, device=self.device, requires_grad=True)
        targets = torch.zeros(n_rows, dtype=torch.long, device=self.device)
        seconds = {}
        for rows in {chunk_rows(n_rows, model.vocab_size, n) for n in CHUNK_ELEMENTS}:

            def score(rows: int = rows) -> None:
                bf16 = self.run.precision == "bf16"
                loss = summed_cross_entropy(hidden, weight, targets, n_rows=rows, bf16=bf16)
                torch.autograd.grad(loss, (hidden, weight))

            with contextlib.suppress(torch.OutOfMemoryError):
                seconds[rows] = _seconds(score)
        if not seconds:
            raise torch.OutOfMemoryError(f"the head does not fit in memory for {n_rows} positions")
        return min(seconds, key=seconds.__getitem__)


class _Graph:
    """A captured backward pass over a fixed number of sequences: tokens are copied in, the loss copied out.

    It accumulates into the gradient tensors that the parameters held at capture.
    """

    def __init__(self, backward: Callable[[Tensor], Tensor], model: GPT, tokens: Tensor) -> None:
        self.tokens = tokens.clone()
        kept = _copied_gradients(model)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                backward(self.tokens)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with capture(self.graph):
            self.loss = backward(self.tokens)
        _put_back(model, kept)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Replay over `tokens`; the loss is a copy, since the next replay overwrites the original."""
        self.tokens.copy_(tokens)
        self.graph.replay()
        return self.loss.clone()


def _copied_gradients(model: GPT) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def _put_back(model: GPT, gradients: list[Tensor | None]) -> None:
    """Restore gradients in place, as `_copied_gradients` gave them; None becomes zero."""
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if parameter.grad is not None:
            parameter.grad.zero_() if gradient is None else parameter.grad.copy_(gradient)


def capture(graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
    """Capture the current stream; other threads, as the one that watches ranks, may call CUDA meanwhile."""
    return torch.cuda.graph(graph, capture_error_mode="thread_local")


def _seconds(call: Callable[[], None], repeats: int = 5) -> float:
    """Return the least time of `repeats` calls on the device."""
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
