"""Writes a finished run as a checkpoint that transformers loads as one of its stock classes.

`python -m sweep.train.export DIR RUN_KEY OUT DATA_DIR` is what `sweep export` becomes.
"""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sweep.data.tokenizers.stock_tokenizer import stock_tokenizer
from sweep.errors import InputError, user_error
from sweep.store.attempts.attempts import list_attempts
from sweep.store.files import naming
from sweep.store.plans import run_directory
from sweep.store.points import ResultError, read_result
from sweep.store.run_store import RunStore
from sweep.train.checkpoint import load_latest
from sweep.train.models.convert.huggingface import stock_class, to_huggingface, write_checkpoint

PARAMETER = "model."  # before a parameter's name in a checkpoint


def export_run(sweep_dir: Path, run_key: str, out: Path, data_dir: Path) -> Path:
    """Write model.safetensors, config.json, tokenizer.json and tokenizer_config.json of a run into `out`.

    `out` appears whole or not at all. Raises InputError when there is no such run, when no stock class can
    express its model, when it is not done or kept no final weights, and when `out` is there and not empty;
    DataError when its tokenizer is gone.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already: name a directory that is not, or an empty one")
    if not run_directory(sweep_dir, run_key).is_dir():
        raise InputError(f"{sweep_dir} has no run {run_key}: sweep status shows its run keys")
    run = RunStore(sweep_dir).run_config(run_key)
    stock_class(run.model)  # before anybody is told to train it again
    weights = final_weights(sweep_dir, run_key, run.n_steps)
    checkpoint = to_huggingface(run.model, weights)
    tokenizer = stock_tokenizer(data_dir, run.tokenizer, run.tokenizer_sha256, run.model.seq_len)
    separator = {"bos_token_id": tokenizer.separator, "eos_token_id": tokenizer.separator}
    checkpoint = replace(checkpoint, config={**checkpoint.config, **separator})
    unfinished = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    with naming(out):
        unfinished.mkdir(parents=True)
    try:
        write_checkpoint(unfinished, checkpoint)
        tokenizer.write(unfinished)
        unfinished.replace(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return out


def final_weights(sweep_dir: Path, run_key: str, n_steps: int) -> Mapping[str, Tensor]:
    """The parameters that the run's committed attempt ended with, by their names in the model.

    Raises InputError when the run is not done, or kept none.
    """
    run_dir = run_directory(sweep_dir, run_key)
    if not (run_dir / "result.json").exists():
        raise InputError(f"run {run_key} is not finished: there are no final weights yet")
    try:
        point = read_result(run_dir / "result.json", run_key).point
    except ResultError as error:
        raise InputError(str(error)) from None
    if point.status != "done":
        raise InputError(f"run {run_key} {point.status}: there are no weights worth exporting")
    attempt = dict(list_attempts(run_dir)).get(point.attempts or 0)
    checkpoint = load_latest(attempt / "checkpoint") if attempt else None
    if checkpoint is None or checkpoint.step != n_steps:
        raise InputError(
            f"run {run_key} kept no final weights: delete {run_dir / 'result.json'} and train it again with "
            f"trainer.keep_checkpoint=true"
        )
    parameters = {name: t for name, t in checkpoint.tensors.items() if name.startswith(PARAMETER)}
    return {name.removeprefix(PARAMETER): tensor for name, tensor in parameters.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Export the run that `argv` names; returns the exit code (design.md, Verbs)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 4:
        sys.stderr.write("usage: python -m sweep.train.export DIR RUN_KEY OUT DATA_DIR\n")
        return 2
    sweep_dir, run_key, out, data_dir = arguments
    try:
        written = export_run(Path(sweep_dir), run_key, Path(out), Path(data_dir))
    except Exception as error:
        told = user_error(error)
        if told is None:
            raise
        sys.stderr.write(f"error: {told}\n")
        return told.exit_code
    sys.stderr.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
