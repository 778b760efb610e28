"""Race of many runs, from the command to the fitted curve: `sweep run` against a loop over nanoGPT."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweep import flops

from .peer import environment
from .shapes import CPU_RACE_SHAPES, GPU_RACE_SHAPES, GPU_SHAPES, Shape

DOCUMENT_BYTES = 5_000
SEPARATOR = "<|endoftext|>"
SWEEP = "import sys; from sweep.cli.app import main; sys.exit(main())"
COMPILED = "TORCHINDUCTOR_CACHE_DIR"  # compilation cache of both programs; empty at each start

EXPERIMENT = """# @package _global_
defaults:
  - override /data: text
  - override /tokenizer: {tokenizer}
  - override /model: gpt2
name: race
budgets: {budgets}
grid: {{d_model: [{d}], max_budget_error: 0.2, min_steps: 1, max_epochs: 1e9}}
model: {{seq_len: {t}, n_layers: {layers}, aspect_ratio: null, n_heads: {heads}, head_dim: null,
  width_multiple: 4, bias: false, activation: gelu_exact, init_std: 0.02}}
data: {{files: ["{text}"], delimiter: "\\n\\n"}}
tokenizer: {{vocab_size: {vocab}{tokenizer_path}}}
batch_tokens: {batch}
optimizer: {{lr: 0.003}}
precision: {precision}
evaluation: {{n_tokens: {evaluation}}}
trainer: {{device: {device}}}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaceConfig:
    """Runs of a race: every shape at every budget, in FLOPs."""

    device: str
    shapes: tuple[Shape, ...]
    budgets: tuple[float, ...]
    n_documents: int
    evaluation_tokens: int

    @property
    def cuda(self) -> bool:
        """True on a GPU, where both programs are compiled and use bf16."""
        return self.device == "cuda"


CPU = RaceConfig(
    device="cpu", shapes=CPU_RACE_SHAPES, budgets=(5e10, 1e11, 2e11), n_documents=200, evaluation_tokens=2**15
)
GPU = RaceConfig(
    device="cuda", shapes=GPU_RACE_SHAPES, budgets=(1e15, 3e15, 1e16), n_documents=2_000,
    evaluation_tokens=2**20,
)  # fmt: skip
GPU_LARGE = RaceConfig(
    device="cuda", shapes=GPU_SHAPES[1:4], budgets=(1e17,), n_documents=2_000, evaluation_tokens=2**20
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of the race."""

    shape: Shape
    budget: float
    n_steps: int
    flops: int


class Race:
    """Both programs on one token file below `directory`; each start has an empty results directory."""

    def __init__(self, directory: Path, peer: Path, config: RaceConfig) -> None:
        self.directory, self.peer, self.config = directory, peer, config
        self.configs, self.data = directory / "configs", directory / "data"
        self._write_experiments()
        self._sweep("data", "prepare", f"experiment={_name(config.shapes[0])}")
        self.runs = [run for shape in config.shapes for run in self._plan(shape)]
        self._prepare_peer()

    def ours(self) -> float:
        """Return the seconds of `sweep run` and of the fit over all its points."""
        shutil.rmtree(self.directory / "results", ignore_errors=True)
        shutil.rmtree(self.directory / "compiled", ignore_errors=True)
        names = ",".join(_name(shape) for shape in self.config.shapes)
        start = time.perf_counter()
        self._sweep("run", f"arms={{experiment: [{names}]}}")
        self._sweep("fit", str(self.directory / "results/race/points.csv"))
        return time.perf_counter() - start

    def sequential(self) -> float:
        """Return the seconds of the same runs by train.py in sequence, with its own thread settings."""
        shutil.rmtree(self.directory / "compiled", ignore_errors=True)
        start = time.perf_counter()
        for index in range(len(self.runs)):
            subprocess.run(
                self._command(index), cwd=self.peer, check=True, env=self._environment(), **_log(self, index)
            )
        return time.perf_counter() - start

    def parallel(self) -> float:
        """Return the seconds of xargs -P2 over the same commands, one thread each."""
        lines = "".join(" ".join(self._command(index)[1:]) + "\n" for index in range(len(self.runs)))
        one_thread = self._environment() | {"OMP_NUM_THREADS": "1"}
        command = ["xargs", "-P2", "-L1", sys.executable]
        start = time.perf_counter()
        subprocess.run(
            command,
            input=lines.encode(),
            cwd=self.peer,
            check=True,
            env=one_thread,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - start

    def losses(self) -> list[dict[str, Any]]:
        """Return the final losses of both by run, after `ours` and `sequential`."""
        points = {}
        for file in (self.directory / "results/race/runs").glob("*/result.json"):
            point = json.loads(file.read_text())["point"]
            points[point["d_model"], point["flops_budget"]] = point
        return [
            {
                "shape": run.shape.name, "budget": run.budget, "n_steps": run.n_steps, "flops": run.flops,
                "loss": points[run.shape.d_model, run.budget]["loss"], "loss_peer": self._peer_loss(index),
            }
            for index, run in enumerate(self.runs)
        ]  # fmt: skip

    def _peer_loss(self, index: int) -> float:
        lines = [line for line in self._log(index).read_text().splitlines() if "val loss" in line]
        return float(lines[-1].rpartition(" ")[2])

    def _log(self, index: int) -> Path:
        return self.directory / f"peer-{index}.log"

    def _write_experiments(self) -> None:
        (self.configs / "experiment").mkdir(parents=True)
        text, tokenizer = self.directory / "corpus.txt", self.directory / "tokenizer.json"
        config = self.config
        text.write_bytes(_text(config.n_documents))
        if config.cuda:
            _write_byte_tokenizer(tokenizer)
        for shape in config.shapes:
            content = EXPERIMENT.format(
                d=shape.d_model, t=shape.seq_len, layers=shape.n_layers, heads=shape.n_heads, text=text,
                batch=shape.batch_size * shape.seq_len, evaluation=config.evaluation_tokens,
                vocab=shape.vocab_size, device=config.device,
                budgets=list(config.budgets), precision="bf16" if config.cuda else "fp32",
                tokenizer="pretrained" if config.cuda else "byte",
                tokenizer_path=f', path: "{tokenizer}"' if config.cuda else "",
            )  # fmt: skip
            (self.configs / "experiment" / f"{_name(shape)}.yaml").write_text(content)

    def _plan(self, shape: Shape) -> list[Run]:
        document = json.loads(self._sweep("plan", f"experiment={_name(shape)}", "--json"))
        return [
            Run(
                shape=shape, budget=run["flops_budget"], n_steps=run["n_tokens"] // run["batch_tokens"],
                flops=flops.count(shape.model(), run["n_tokens"]).flops,
            )
            for run in document["runs"]
        ]  # fmt: skip

    def _sweep(self, verb: str, *arguments: str) -> bytes:
        command = [sys.executable, "-c", SWEEP, verb, *arguments, "--config-dir", str(self.configs)]
        if verb != "fit":
            command += [f"results_dir={self.directory / 'results'}", f"data_dir={self.data}"]
        done = subprocess.run(command, capture_output=True, env=self._environment(), check=False)
        if done.returncode:
            raise RuntimeError(f"sweep {verb} left with {done.returncode}: {done.stderr.decode()[-2000:]}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return environment() | {COMPILED: str(self.directory / "compiled")}

    def _prepare_peer(self) -> None:
        """Prepare nanoGPT's data directory with its own prepare.py, which also writes a vocabulary of 65.

        Without a vocabulary, as on a GPU, it assumes 50,304. The token files are then replaced by sweep's:
        both store ids as little-endian uint16.
        """
        own = self.directory / "peer"
        own.mkdir()
        if not self.config.cuda:
            shutil.copy(self.peer / "data/shakespeare_char/prepare.py", own)
            (own / "input.txt").write_text("".join(map(chr, range(48, 48 + 65))) * 10)
            subprocess.run([sys.executable, "prepare.py"], cwd=own, check=True, stdout=subprocess.DEVNULL)
        for split, theirs in (("train", "train.bin"), ("heldout", "val.bin")):
            shards = sorted((self.data / "prepared").glob(f"*/{split}-[0-9]*.bin"))
            assert shards, f"no shards of {split} in {self.data}"
            ids = np.concatenate([np.fromfile(shard, dtype="<u2") for shard in shards])
            ids.tofile(own / theirs)

    def _command(self, index: int) -> list[str]:
        run, config = self.runs[index], self.config
        shape, steps = run.shape, run.n_steps
        batches = config.evaluation_tokens / (shape.batch_size * shape.seq_len)
        settings: Mapping[str, Any] = {
            "out_dir": self.directory / f"out-{index}", "dataset": self.directory / "peer",
            "device": config.device, "dtype": "bfloat16" if config.cuda else "float32",
            "compile": config.cuda, "eval_interval": steps, "max_iters": steps,
            "eval_iters": max(1, round(batches / 4)),  # two splits, evaluated twice: as many tokens as sweep
            "log_interval": 10, "batch_size": shape.batch_size, "block_size": shape.seq_len,
            "n_layer": shape.n_layers, "n_head": shape.n_heads, "n_embd": shape.d_model, "dropout": 0.0,
            "bias": False, "gradient_accumulation_steps": 1, "learning_rate": 3e-3, "min_lr": 3e-4,
            "lr_decay_iters": steps, "warmup_iters": max(1, steps // 10), "beta2": 0.95,
        }  # fmt: skip
        return [sys.executable, "train.py", *(f"--{key}={value}" for key, value in settings.items())]


def _log(race: Race, index: int) -> dict[str, Any]:
    return {"stdout": race._log(index).open("wb"), "stderr": subprocess.STDOUT}


def _name(shape: Shape) -> str:
    return f"race_d{shape.d_model}"


def _write_byte_tokenizer(path: Path) -> None:
    """Write a byte tokenizer in the format of a pretrained one, which may have a padded vocabulary."""
    import tokenizers  # optional: needed on a GPU only

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, [])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([SEPARATOR])
    tokenizer.save(str(path))


def _text(n_documents: int) -> bytes:
    """Return documents of words over bytes 1 to 64, which with id 0 as separator give V = 65."""
    generator = random.Random(0)
    symbols = [byte for byte in range(1, 65) if byte not in (10, 13)]
    words = [bytes(generator.choices(symbols, k=generator.randint(2, 7))) for _ in range(300)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    documents = []
    for _ in range(n_documents):
        documents.append(b"\x20".join(generator.choices(words, weights, k=DOCUMENT_BYTES // 5)))
    return b"\n\n".join(documents)
