"""Preparation of generated text against the bare `tokenizers` library on the same cores.

Prints one JSON document: throughputs of both, measured in turn in one run on the same files; the peak memory
of preparing a quarter and all of the text; and whether a preparation that is killed half-way and resumed
leaves the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 8192
CHUNK_BYTES = 2**20  # per call of the library, in both contestants
SAMPLE_BYTES = 4_000_000  # of the text that the tokenizer is trained on


def generate(directory: Path, n_bytes: int, n_files: int, seed: int = 0) -> None:
    """Write text of words with Zipf's frequencies, in files of equal size below 256 subdirectories.

    A file is a number and sentences drawn from a pool, so that gigabytes take a minute.
    """
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", dtype=np.uint8)
    lengths = rng.integers(2, 10, 50_000)
    words = np.array([letters[rng.zipf(1.3, n) % 26].tobytes().decode() for n in lengths])
    sentences = [
        " ".join(words[rng.zipf(1.2, n) % len(words)].tolist()) + "." for n in rng.integers(4, 40, 50_000)
    ]
    per_file = n_bytes // n_files
    for number in range(n_files):
        drawn = rng.integers(0, len(sentences), per_file // 40 + 8).tolist()
        text = f"{number} " + " ".join([sentences[index] for index in drawn])
        folder = directory / f"{number % 256:02x}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:07d}.txt").write_text(text[:per_file])


def train_tokenizer(text: Path, file: Path) -> None:
    """Train a byte-level BPE on a sample of the text and save it."""
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    fast.train_from_iterator(sample(text), trainer)
    fast.save(str(file))


def sample(text: Path) -> Iterator[str]:
    """Yield the first files, of SAMPLE_BYTES in total."""
    n_bytes = 0
    for path in sorted(text.glob("*/*.txt")):
        yield path.read_text()
        n_bytes += path.stat().st_size
        if n_bytes >= SAMPLE_BYTES:
            return


def bare(text: Path, tokenizer: Path) -> float:
    """Return the seconds in which the library encodes all files, read in chunks; the ids are discarded."""
    fast = Tokenizer.from_file(str(tokenizer))
    started, chunk, size = time.perf_counter(), [], 0
    for path in sorted(text.glob("*/*.txt")):
        chunk.append(path.read_text())
        size += len(chunk[-1])
        if size >= CHUNK_BYTES:
            fast.encode_batch_fast(chunk, add_special_tokens=False)
            chunk, size = [], 0
    fast.encode_batch_fast(chunk, add_special_tokens=False)
    return time.perf_counter() - started


def prepare(text: str, tokenizer: str, data_dir: str) -> None:
    """Prepare the text and print seconds by stage and the peak memory of this process."""
    from sweep.config import PretrainedTokenizerConfig, TextData
    from sweep.data.shards import prepare

    stages: dict[str, float] = {}
    started = time.perf_counter()

    def report(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        stages.setdefault(stage, time.perf_counter() - started)
        sys.stderr.write(f"{stage} {n_bytes_done} {n_bytes}\n")
        sys.stderr.flush()

    data = TextData(source="text", files=(f"{text}/*/*.txt",))
    prepared = prepare(
        data,
        PretrainedTokenizerConfig(name="pretrained", path=tokenizer),
        Path(data_dir),
        on_progress=report,
    )
    found = {
        "seconds": time.perf_counter() - started,
        "scan_s": stages["tokenise"],
        "peak_rss_mb": peak_rss_mb(),
        "n_tokens": len(prepared.train) + len(prepared.heldout.tokens),
        "directory": str(prepared.directory),
    }
    print(json.dumps(found))


def peak_rss_mb() -> float:
    """Return the peak memory of this program; `getrusage` counts that of the one that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def prepared(text: Path, tokenizer: Path, data_dir: Path) -> dict[str, object]:
    """Return what `prepare` prints in a process of its own."""
    done = subprocess.run(_command(text, tokenizer, data_dir), check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def killed(text: Path, tokenizer: Path, data_dir: Path) -> None:
    """Start a preparation and kill it once half of the text is encoded."""
    process = subprocess.Popen(
        _command(text, tokenizer, data_dir), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        stage, done, total = line.split()
        if stage == "tokenise" and 2 * int(done) > int(total):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()


def _command(*paths: Path) -> list[str]:
    return [sys.executable, "-m", "scripts.benchmarks.data", "--prepare", *map(str, paths)]


def digest(directory: str) -> dict[str, str]:
    """Return the SHA-256 of every file of prepared data."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(directory).iterdir())
    }


def main() -> None:
    """Run the benchmark in a temporary directory and print its document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=0.2)
    parser.add_argument("--files", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="parent of the temporary directory")
    parser.add_argument("--prepare", nargs=3)
    options = parser.parse_args()
    if options.prepare:
        prepare(*options.prepare)
        return
    n_bytes = int(options.gb * 1e9)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        root = Path(directory)
        text, tokenizer = root / "text", root / "tokenizer.json"
        generate(text, n_bytes, options.files)
        quarter = root / "quarter"
        quarter.mkdir()
        for folder in sorted(text.iterdir())[::4]:
            (quarter / folder.name).symlink_to(folder)
        train_tokenizer(text, tokenizer)
        size = sum(path.stat().st_size for path in text.glob("*/*.txt"))
        bare_s, ours = [], []
        for number in range(options.rounds):
            bare_s.append(bare(text, tokenizer))
            ours.append(prepared(text, tokenizer, root / f"data-{number}"))
        small = prepared(quarter, tokenizer, root / "data-quarter")
        killed(text, tokenizer, root / "data-killed")
        resumed = prepared(text, tokenizer, root / "data-killed")
        whole_s = [float(one["seconds"]) for one in ours]
        encode_s = [float(one["seconds"]) - float(one["scan_s"]) for one in ours]
        print(
            json.dumps(
                {
                    "cores": len(os.sched_getaffinity(0)),
                    "n_files": options.files,
                    "n_bytes": size,
                    "n_tokens": ours[0]["n_tokens"],
                    "bare_mb_per_s": [size / 1e6 / seconds for seconds in bare_s],
                    "prepare_mb_per_s": [size / 1e6 / seconds for seconds in whole_s],
                    "ratio_prepare": statistics.median(b / w for b, w in zip(bare_s, whole_s, strict=True)),
                    "ratio_encode": statistics.median(b / e for b, e in zip(bare_s, encode_s, strict=True)),
                    "peak_rss_mb_quarter": small["peak_rss_mb"],
                    "peak_rss_mb": ours[-1]["peak_rss_mb"],
                    "resumed_s": resumed["seconds"],
                    "resumed_to_the_same_bytes": digest(str(resumed["directory"]))
                    == digest(str(ours[0]["directory"])),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
