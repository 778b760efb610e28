"""A first experiment of one's own: a commented file, sized to this machine and to the corpus.

Legend: C training FLOPs, D tokens.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sweep.config import EvaluationConfig, ExperimentConfig
from sweep.config.compose import compose_experiment
from sweep.config.places import data_directory
from sweep.data import corpus as corpora
from sweep.data.registry import source_of
from sweep.data.sources.hub import is_path
from sweep.errors import InputError
from sweep.machine.workers import worker_count
from sweep.records import Plan
from sweep.store.files import naming, write_atomic
from sweep.study.plan import plan_experiment
from sweep.study.speed import machine_speed, measured

TARGET_S = 900.0  # of the whole sweep, where no budget is given
N_BUDGETS = 4  # each twice the one before
MAX_EPOCHS = 2.0  # over the corpus, of the run with most tokens
MAX_ROUNDS = 6
TABLES = (".parquet", ".arrow", ".jsonl", ".csv")
HOLDOUT_FRAC = 0.1  # of the documents of one's own corpus
HOLDOUT = f"holdout_frac: {HOLDOUT_FRAC}"
MIN_DOCUMENTS = 200  # in one file, to hold some of them out
MIN_TOKENS = 200_000  # of a corpus; with fewer, a budget of model=tiny has three sizes or none
BYTES_PER_TOKEN = {"byte": 1.0, "bpe": 2.5, "pretrained": 4.0}
STDLIB_BYTES = 11e6
Model = Literal["tiny", "gpt", "gpt2", "llama"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InitOptions:
    """The arguments of `sweep init`."""

    directory: Path
    name: str
    corpus: str | None = None  # a file, glob or directory, or OWNER/NAME@COMMIT; None: the standard library
    tokenizer: str = "bpe"  # byte, bpe, or the path of a tokenizer.json
    flops_budget: float | None = None  # the largest; None: about TARGET_S on this machine
    device: Device = "auto"
    model: Model = "tiny"


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """The lines of an experiment about its text."""

    group: str
    lines: tuple[str, ...]  # of the section `data`
    n_bytes: float | None  # None for a data set of the hub
    n_bytes_held_out: float | None = None  # None where the text has not been read


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The file that `init` wrote, and its plan."""

    path: Path
    plan: Plan
    seconds: float  # of its runs, on the workers of this machine
    is_measured: bool  # else the seconds are a guess


def init(options: InitOptions, on_notice: Callable[[str], None] = lambda sentence: None) -> Started:
    """Write an experiment that can be planned, and return it with its plan.

    The budgets fill TARGET_S of this machine, as far as the corpus has tokens for them. Raises InputError for
    a file that exists, and for a corpus, tokenizer or budget that cannot be used; nothing is written then.
    """
    path = options.directory / "configs" / "experiment" / f"{options.name}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", options.name):
        raise InputError(f"--name {options.name} is invalid: use letters, digits, dots, - and _")
    corpus = corpus_of(options)
    if _tokenizer(options) == "pretrained":
        _kept(options)
    if path.exists():
        raise InputError(f"{path} already exists: choose another --name, or edit that file")
    parents = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be created ({error.strerror}): give another DIR") from None
    try:
        started = _sized(options, corpus, path, on_notice)
    except BaseException:
        path.unlink(missing_ok=True)
        for parent in parents:
            parent.rmdir()
        raise
    return started


def _sized(options: InitOptions, corpus: Corpus, path: Path, on_notice: Callable[[str], None]) -> Started:
    largest, limited = options.flops_budget or 3e12, False
    with naming(path):
        path.write_text(experiment_text(options, corpus, budgets(largest), "sized"))
    found = _text_of(options, corpus)
    if found is not None:
        corpus = replace(corpus, n_bytes=found.n_bytes, n_bytes_held_out=found.n_bytes_held_out)
    n_tokens = None if corpus.n_bytes is None else corpus.n_bytes / BYTES_PER_TOKEN[_tokenizer(options)]
    for number in range(MAX_ROUNDS):
        with naming(path):
            path.write_text(experiment_text(options, corpus, budgets(largest), "sized"))
        try:
            plan, seconds = _planned(options, on_notice)
        except InputError:
            if limited and found is not None:  # to budgets that no model can be trained at
                raise _too_little(options, found) from None
            raise
        most = max(run.config.n_tokens for run in plan.runs)
        scale = TARGET_S / seconds
        limited = n_tokens is not None and most * math.sqrt(scale) > MAX_EPOCHS * n_tokens
        if limited:
            assert n_tokens is not None
            scale = (MAX_EPOCHS * n_tokens / most) ** 2  # D grows with the root of C
        if options.flops_budget is not None or 0.85 < scale < 1.15 or number == MAX_ROUNDS - 1:
            break
        largest *= scale
    write_atomic(path, experiment_text(options, corpus, budgets(largest), _reason(limited, options)).encode())
    is_measured = machine_speed(_composed(options)) is not None
    return Started(path=path, plan=plan, seconds=seconds, is_measured=is_measured)


def _text_of(options: InitOptions, corpus: Corpus) -> corpora.Corpus | None:
    """Return the distinct documents of one's own local corpus; None for another.

    Raises InputError for a corpus that holds out less text than runs can be scored on.
    """
    if options.corpus is None or corpus.n_bytes is None:
        return None
    experiment = _composed(options)
    source = source_of(experiment.data)
    found = corpora.scan_source(source, experiment.data, data_directory(experiment) / "scans")
    n_tokens = (found.n_bytes_held_out or 0) / BYTES_PER_TOKEN[_tokenizer(options)]
    if n_tokens < 2 * experiment.model.seq_len:
        raise _too_little(options, found)
    return found


def _too_little(options: InitOptions, found: corpora.Corpus) -> InputError:
    """Return the error for a corpus with too little text, or too few documents to hold some out."""
    copies = f" after {found.n_copies:,} copies were dropped" if found.n_copies else ""
    needed = MIN_TOKENS * BYTES_PER_TOKEN[_tokenizer(options)]
    n_bytes, n_documents = found.n_bytes or 0, found.n_documents or 0
    documents = "1 document" if n_documents == 1 else f"{n_documents:,} documents"
    remedy = "give more text" if n_bytes < needed else "split the text into more files or lines"
    return InputError(
        f"--corpus {options.corpus} has {n_bytes:,} bytes of text in {documents}{copies}, and a sweep "
        f"needs about {needed:,.0f} in {MIN_DOCUMENTS} or more, to hold some out: {remedy}"
    )


def _reason(limited: bool, options: InitOptions) -> str:
    if options.flops_budget is not None:
        return "the largest is --flops-budget"
    if limited:
        return f"as large as the corpus allows with about {MAX_EPOCHS:g} passes over it"
    return f"about {TARGET_S / 60:.0f} minutes for all runs on the machine this was written on"


def _planned(options: InitOptions, on_notice: Callable[[str], None]) -> tuple[Plan, float]:
    """Return the plan of the file written last, and the seconds of its runs."""
    experiment = _composed(options)
    (plan,) = measured([plan_experiment(experiment)], on_notice)
    return plan, worker_count([plan]).wall_s([run.time_s for run in plan.runs])


def _composed(options: InitOptions) -> ExperimentConfig:
    experiment = compose_experiment([f"experiment={options.name}"], options.directory / "configs")
    return replace(experiment, results_dir=str(options.directory / experiment.results_dir))


def budgets(largest: float) -> list[float]:
    """Return N_BUDGETS budgets of two digits, each twice the one before.

    >>> budgets(8e11)
    [100000000000.0, 200000000000.0, 400000000000.0, 800000000000.0]
    """
    return [float(f"{largest / 2**power:.1e}") for power in range(N_BUDGETS - 1, -1, -1)]


def corpus_of(options: InitOptions) -> Corpus:
    """Return the lines about the corpus. Raises InputError for one that is not found or cannot be read."""
    given = options.corpus
    if given is None:
        return Corpus(group="stdlib", lines=("holdout_frac: 0.2",), n_bytes=STDLIB_BYTES)
    if not given.strip():
        raise InputError("--corpus is empty: give a file, a directory, a glob, or OWNER/NAME@COMMIT")
    path = Path(given).expanduser()
    if not path.exists() and not any(sign in given for sign in "*?["):
        return _of_hub(given)
    kept = given if options.directory.resolve() == Path.cwd() else str(path.absolute())
    files = _files(path)
    if not files:
        raise InputError(f"--corpus {given} has no files: give a file, a directory or a glob of text")
    suffix, _ = Counter(_bytes_by_suffix(files)).most_common(1)[0]
    n_bytes = float(sum(file.stat().st_size for file in files if file.suffix == suffix))
    if suffix in TABLES:
        lines = (f"dataset: {_quoted(kept)}", "column: text  # that holds the text", HOLDOUT)
        return Corpus(group="huggingface", lines=lines, n_bytes=n_bytes)
    pattern = f"{kept.rstrip('/')}/**/*{suffix}" if path.is_dir() else kept
    delimiter = _delimiter(files) if len(files) < MIN_DOCUMENTS else ()
    return Corpus(group="text", lines=(f"files: [{_quoted(pattern)}]", *delimiter, HOLDOUT), n_bytes=n_bytes)


def _of_hub(given: str) -> Corpus:
    name, _, commit = given.partition("@")
    if is_path(name) or name.count("/") != 1:
        raise InputError(
            f"--corpus {given} not found: give a file, a directory, a glob, or OWNER/NAME@COMMIT"
        )
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise InputError(
            f"--corpus {given} is not on this disk: for a data set of the hub give OWNER/NAME@COMMIT, with "
            f"the 40 hex digits of a commit"
        )
    lines = (
        f"dataset: {_quoted(name)}",
        f"revision: {_quoted(commit)}",
        "column: text  # that holds the text",
    )
    return Corpus(group="huggingface", lines=lines, n_bytes=None)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    pattern = str(path.relative_to(path.anchor) if path.is_absolute() else path)
    return [file for file in anchor.glob(pattern) if file.is_file()]


def _bytes_by_suffix(files: Sequence[Path]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for file in files:
        sizes[file.suffix] = sizes.get(file.suffix, 0) + file.stat().st_size
    return sizes


def _delimiter(files: Sequence[Path]) -> tuple[str, ...]:
    """Return the line that splits few files into documents: at blank lines if many, else at line ends."""
    text = b"".join(file.read_bytes()[: 1 << 22] for file in files[:8])
    mark = '"\\n\\n"' if text.count(b"\n\n") >= MIN_DOCUMENTS else '"\\n"'
    return (f"delimiter: {mark}  # between documents; some of them are held out",)


def _quoted(text: str) -> str:
    """Return a YAML string in double quotes, as JSON writes it."""
    return json.dumps(text, ensure_ascii=False)


def _tokenizer(options: InitOptions) -> str:
    return options.tokenizer if options.tokenizer in ("byte", "bpe") else "pretrained"


def experiment_text(options: InitOptions, corpus: Corpus, at: Sequence[float], reason: str) -> str:
    """Return the experiment as YAML, with a comment on everything that one is likely to change."""
    tokenizer = _tokenizer(options)
    listed = ", ".join(re.sub(r"e\+0*", "e", f"{budget:.2g}") for budget in at)
    lines = [
        "# @package _global_",
        "# Written by sweep init; change what you like. docs/config.md lists every key.",
        f"#   sweep plan experiment={options.name}",
        f"#   sweep run experiment={options.name}",
        "defaults:",
        f"  - override /data: {corpus.group}",
        f"  - override /tokenizer: {tokenizer}",
        f"  - override /model: {options.model}",
        "",
        f"name: {options.name}  # of the directory in results/",
        f"# Exact training FLOPs of one run; {reason}.",
        f"budgets: [{listed}]",
        "seeds: [0]  # [0, 1] trains every run twice and measures the noise between runs",
        "grid:",
        "  n_sizes: 5  # models at each budget, log-spaced; three or fewer cannot enclose a minimum",
        "  span: 16  # largest over smallest D/N at a budget",
        f"  tokens_per_param: {8 if _is_tiny(options) else 20}  # D/N around which the sizes lie",
        "",
        "data:",
        *(f"  {line}" for line in corpus.lines),
    ]
    if tokenizer == "bpe":
        lines += ["tokenizer:", "  vocab_size: 1024  # trained on this text"]
    elif tokenizer == "pretrained":
        lines += ["tokenizer:", f"  path: {_quoted(_kept(options))}"]
    lines += _evaluation_lines(options, corpus)
    lines += ["", *_model_lines(options, tokenizer)]
    if options.device != "auto":
        lines += ["trainer:", f"  device: {options.device}"]
    return "\n".join(lines) + "\n"


def _evaluation_lines(options: InitOptions, corpus: Corpus) -> list[str]:
    """Return the lines that score runs on less text than by default, where a small corpus holds out less."""
    if corpus.n_bytes is None or corpus.group == "stdlib":
        return []
    held_out = HOLDOUT_FRAC * corpus.n_bytes if corpus.n_bytes_held_out is None else corpus.n_bytes_held_out
    n_tokens = 2 ** math.floor(math.log2(max(held_out / BYTES_PER_TOKEN[_tokenizer(options)] / 2, 2)))
    if n_tokens >= EvaluationConfig().n_tokens:
        return []
    return ["evaluation:", f"  n_tokens: {n_tokens}  # held-out tokens on which runs are scored"]


def _kept(options: InitOptions) -> str:
    path = Path(options.tokenizer).expanduser()
    if not path.exists():
        raise InputError(f"--tokenizer {options.tokenizer} not found: give byte, bpe or a tokenizer.json")
    return options.tokenizer if options.directory.resolve() == Path.cwd() else str(path.absolute())


def _is_tiny(options: InitOptions) -> bool:
    return options.device != "cuda"


def _model_lines(options: InitOptions, tokenizer: str) -> list[str]:
    if not _is_tiny(options):
        return ["optimizer:", "  lr_max: 0.01  # the rule step_law was measured above 60M parameters"]
    rule = "tiny" if tokenizer == "byte" else "tiny_bpe"
    shape = []
    if options.model != "tiny":
        shape = [
            "model:  # one depth, and widths in small steps, for small models",
            "  seq_len: 128",
            "  n_layers: 4",
            "  aspect_ratio: null",
            "  n_heads: 2",
            "  head_dim: null",
            "  width_multiple: 4",
            *(["  n_kv_heads: 1", "  d_ff_multiple: 8"] if options.model == "llama" else []),
        ]
    guess = "" if options.model == "tiny" else ", a guess for this model"
    return [
        *shape,
        f"batch_tokens: {rule}  # a rule by tokens{guess}; sweep check-hparams measures what it costs",
        "optimizer:",
        f"  lr: {rule}  # likewise",
        "  beta1: 0.85",
        "schedule:",
        "  final_lr_frac: 0",
        "precision: fp32",
    ]
