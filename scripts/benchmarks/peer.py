"""Model and training steps of unmodified nanoGPT, from a checkout by path.

`python -m scripts.benchmarks.peer CHECKOUT SHAPE DEVICE TOKENS` reads a number of steps per line, takes them
and answers with their median seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from scripts.benchmarks.gpu_check import python_path
from scripts.benchmarks.shapes import CPU_SHAPES, GPU_SHAPES, Shape, batches, stepper
from scripts.benchmarks.timing import seconds
from sweep.launch.local import MEMORY_VARIABLES
from sweep.train.models.gpt import GPT

NAMES = {
    "transformer.wte.weight": "embedding.weight", "transformer.wpe.weight": "positions.weight",
    "transformer.ln_f.weight": "norm.gain", "ln_1.weight": "attention_norm.gain",
    "ln_2.weight": "mlp_norm.gain", "attn.c_attn.weight": "attention.qkv.weight",
    "attn.c_proj.weight": "attention.out.weight", "mlp.c_fc.weight": "mlp.up.weight",
    "mlp.c_proj.weight": "mlp.down.weight",
}  # fmt: skip
PARITY_STEPS, PARITY = 12, 1e-4  # relative; losses of the first steps from the same weights and data


def load(directory: Path) -> ModuleType:
    """Import nanoGPT's model.py."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", directory / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(module: ModuleType, shape: Shape) -> Any:
    """Build nanoGPT's decoder of this shape."""
    config = module.GPTConfig(
        block_size=shape.seq_len, vocab_size=shape.vocab_size, n_layer=shape.n_layers,
        n_head=shape.n_heads, n_embd=shape.d_model, dropout=0.0, bias=False,
    )  # fmt: skip
    torch.manual_seed(0)
    return module.GPT(config)


class Steps:
    """nanoGPT's steps in a process without the memory settings of sweep's workers."""

    def __init__(self, checkout: Path, shape: Shape, device: str, tokens: Path) -> None:
        arguments = [str(checkout), shape.name, device, str(tokens)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.peer", *arguments],
            env=environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, repeats: int) -> float:
        """Return the median seconds of `repeats` steps."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{repeats}\n")
        self._process.stdin.flush()
        while True:  # skip the output of its model's constructor
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"the peer left with {self._process.wait()}")
            if line.startswith("median "):
                return float(line.split()[1])

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def environment() -> dict[str, str]:
    """Return the environment without limits on threads and without the workers' memory settings."""
    dropped = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", *MEMORY_VARIABLES)
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"PYTHONPATH": python_path()}


def step(decoder: Any, shape: Shape, device: str, tokens: Path) -> Callable[[], None]:
    """Return one iteration as in nanoGPT's train.py, with read-ahead; on CUDA in bf16 and compiled."""
    cuda = device == "cuda"
    optimizer = decoder.to(device).configure_optimizers(0.1, 1e-3, (0.9, 0.95), device)
    size = shape.seq_len
    run = decoder
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        run = torch.compile(decoder)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        data = np.memmap(tokens, dtype=np.uint16, mode="r")
        ix = torch.randint(len(data) - size, (shape.batch_size,))
        x = torch.stack([torch.from_numpy(data[i : i + size].astype(np.int64)) for i in ix])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + size].astype(np.int64)) for i in ix])
        if cuda:
            x, y = (t.pin_memory().to(device, non_blocking=True) for t in (x, y))
        return x, y

    ahead = [batch()]

    def call() -> None:
        x, y = ahead.pop()
        with torch.autocast("cuda", torch.bfloat16) if cuda else contextlib.nullcontext():
            _, loss = run(x, y)
        ahead.append(batch())
        _update(decoder, optimizer, loss)
        if not cuda:
            loss.item()

    return call


def _update(decoder: Any, optimizer: Any, loss: torch.Tensor) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def parity(module: ModuleType, shape: Shape) -> float:
    """Return the largest relative difference of losses over the first steps, from equal weights and data."""
    decoder = model(module, shape)
    ours, data = stepper(shape, "fp32", "cpu", Path()), batches(shape)
    copy_weights(decoder, ours.model)
    optimizer = decoder.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")
    worst = 0.0
    for number in range(PARITY_STEPS):
        tokens = torch.from_numpy(data.at(number))
        _, loss = decoder(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        _update(decoder, optimizer, loss)
        theirs = loss.item()
        worst = max(worst, abs(float(ours(number)) - theirs) / theirs)
    return worst


def copy_weights(decoder: Any, target: GPT) -> None:
    """Copy nanoGPT's weights into `target`."""
    own = dict(target.named_parameters())
    with torch.no_grad():
        for name, tensor in decoder.named_parameters():
            if name in NAMES:
                own[NAMES[name]].copy_(tensor)
                continue
            _, _, layer, part = name.split(".", 3)
            own[f"blocks.{layer}.{NAMES[part]}"].copy_(tensor)


def main(checkout: str, name: str, device: str, tokens: str) -> None:
    """Answer each line of standard input."""
    torch.set_num_threads(2)
    shape = next(shape for shape in CPU_SHAPES + GPU_SHAPES if shape.name == name)
    call = step(model(load(Path(checkout)), shape), shape, device, Path(tokens))
    for line in sys.stdin:
        print("median", seconds(call, int(line)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
