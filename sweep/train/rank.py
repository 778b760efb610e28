"""One further rank of a run, executing the commands of rank 0: `python -m sweep.train.rank`.

It reads its specification as one line of JSON, and exits when its standard input closes, because rank 0 has
then ended. It prints `ready`, and one line of JSON if it fails.
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
from sweep.data.shards import open_prepared
from sweep.errors import is_out_of_memory
from sweep.records import Placement
from sweep.train.checkpoint import load_step
from sweep.train.device import initialise_device
from sweep.train.evaluate import all_windows
from sweep.train.ranks.base import Command
from sweep.train.ranks.parallel import join, leave
from sweep.train.trainer import Trainer


def serve(spec: dict[str, Any]) -> None:
    """Execute the commands of rank 0 until the run ends."""
    run, where = read_run(spec["run"]), spec["placement"]
    placement = Placement(**(where | {"data_dir": Path(where["data_dir"])}))
    device = torch.device(placement.device)
    torch.set_num_threads(placement.n_threads)
    initialise_device(device, deterministic=placement.deterministic)
    data = open_prepared(placement.data_dir, run.corpus_sha256, run.tokenizer_sha256)
    _write_line("ready")
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
            trainer.score(all_windows(run, placement.data_dir, data.heldout)[step])
        else:
            break
    leave()


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _exit_with_rank_0() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)  # a pending collective would never return

    threading.Thread(target=watch, name="rank-0-watch", daemon=True).start()


def main() -> int:
    """Serve the run; on failure print the reason as one line of JSON."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # rank 0 handles signals for all ranks
    spec = json.loads(sys.stdin.readline())
    _exit_with_rank_0()
    try:
        serve(spec)
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0][:300]
        _write_line(
            json.dumps({"oom": is_out_of_memory(error), "error": f"{type(error).__name__}: {first_line}"})
        )
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
