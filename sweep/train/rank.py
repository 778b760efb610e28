"""`python -m sweep.train.rank`: one more rank of a run, which does what rank 0 announces until told to end.

It reads one line of JSON, what to train and whom to join, and then nothing: when its standard input ends,
rank 0 is gone, and so is this process. It prints `ready`, and one line of JSON if it fails.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import torch

from sweep.config.reading import read_run
from sweep.data.batches import evaluation_windows
from sweep.data.shards import open_prepared
from sweep.errors import is_out_of_memory
from sweep.records import Placement
from sweep.train.checkpoint import load_step
from sweep.train.device import use_determinism
from sweep.train.ranks.base import Command
from sweep.train.ranks.parallel import join, leave
from sweep.train.trainer import Trainer


def serve(spec: dict[str, Any]) -> None:
    """Take part in a run from its start to its end."""
    run, where = read_run(spec["run"]), spec["placement"]
    placement = Placement(**(where | {"data_dir": Path(where["data_dir"])}))
    device = torch.device(placement.device)
    torch.set_num_threads(placement.n_threads)
    use_determinism(placement.deterministic, device)
    data = open_prepared(placement.data_dir, run.corpus_sha256, run.tokenizer_sha256)
    _say("ready")
    ranks = join(spec["rank"], spec, device)
    trainer = Trainer(run, placement, data, ranks)
    while True:
        command, step = ranks.receive()
        if command is Command.STEP:
            trainer.step()
        elif command is Command.STATE:
            trainer.state()
        elif command is Command.RESTORE:
            trainer.restore(load_step(Path(spec["checkpoint_dir"]), step))
        elif command is Command.EVALUATE:
            trainer.score(evaluation_windows(data.heldout, run.model.seq_len, run.evaluation.n_tokens))
        else:
            break
    leave()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _end_with_rank_0() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)  # whatever collective we are in will never end

    threading.Thread(target=watch, name="rank-0-watch", daemon=True).start()


def main() -> int:
    """Serve, and say in one line why when that fails."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # rank 0 hears them, and decides for all
    spec = json.loads(sys.stdin.readline())
    _end_with_rank_0()
    try:
        serve(spec)
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0][:300]
        _say(json.dumps({"oom": is_out_of_memory(error), "error": f"{type(error).__name__}: {first_line}"}))
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
