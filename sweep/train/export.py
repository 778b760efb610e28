"""Export of a finished run as a checkpoint for a stock class of transformers.

`sweep export` executes `python -m sweep.train.export DIR RUN_KEY OUT DATA_DIR`.
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
from sweep.machine.environment import open_closed_streams
from sweep.store.attempts.attempts import list_attempts
from sweep.store.files import naming
from sweep.store.plans import run_directory
from sweep.store.points import ResultError, read_result
from sweep.store.run_store import RunStore
from sweep.train.checkpoint import MODEL, load_latest
from sweep.train.models.convert.huggingface import stock_class, to_huggingface, write_checkpoint


def export_run(sweep_dir: Path, run_key: str, out: Path, data_dir: Path) -> Path:
    """Write model.safetensors, config.json, tokenizer.json and tokenizer_config.json of a run into `out`.

    `out` appears by rename. Raises InputError when the run does not exist, is not done or kept no final
    weights, when no stock class can express its model, and when `out` exists and is not empty; DataError when
    its tokenizer is missing.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already exists: choose a new or an empty directory")
    if not run_directory(sweep_dir, run_key).is_dir():
        raise InputError(f"{sweep_dir} has no run {run_key}: sweep status shows its run keys")
    run = RunStore(sweep_dir).run_config(run_key)
    stock_class(run.model)  # fails before a message that asks to train the run again
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
    """Return the final parameters of the run's committed attempt, by their names in the model.

    Raises InputError when the run is not done or kept no final weights.
    """
    run_dir = run_directory(sweep_dir, run_key)
    if not (run_dir / "result.json").exists():
        raise InputError(f"run {run_key} is not finished: it has no final weights yet")
    try:
        point = read_result(run_dir / "result.json", run_key).point
    except ResultError as error:
        raise InputError(str(error)) from None
    if point.status != "done":
        raise InputError(f"run {run_key} {point.status}: only runs with status done can be exported")
    attempt = dict(list_attempts(run_dir)).get(point.attempts or 0)
    checkpoint = load_latest(attempt / "checkpoint") if attempt else None
    if checkpoint is None or checkpoint.step != n_steps:
        raise InputError(
            f"run {run_key} has no final weights: delete {run_dir / 'result.json'} and train it again with "
            f"trainer.keep_checkpoint=true"
        )
    parameters = {name: t for name, t in checkpoint.tensors.items() if name.startswith(MODEL)}
    return {name.removeprefix(MODEL): tensor for name, tensor in parameters.items()}


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
        known = user_error(error)
        if known is None:
            raise
        sys.stderr.write(f"error: {known}\n")
        return known.exit_code
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    open_closed_streams()
    sys.exit(main())
