"""The attempt held by this process: its directory, metrics, checkpoint, end and commit."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.store.attempts.attempts import list_attempts
from sweep.store.files import (
    append_record,
    create,
    json_bytes,
    publish,
    read_json,
    remove_tree,
    sync_directory,
    write_atomic,
)

PARTIAL_COPY = "checkpoint.tmp"

END_IN_RESERVE = "end.reserve"
"""Written with the claim, and renamed to end.json if the disk is full: a rename needs no space."""

DISK_REFUSED = {
    "state": "failed:disk",
    "reason": "the disk is full: the reason of the failure was not written",
    "step": 0,
}


class AttemptLost(Exception):
    """This process no longer holds the attempt; its results are discarded."""


class ActiveAttempt:
    """An attempt claimed by this process; every method except `log` may find that it was lost.

    All paths contain the attempt's name. Once another process has renamed the directory, that name no longer
    exists, so this process can write no commit, end, heartbeat or checkpoint.
    """

    def __init__(self, *, run_dir: Path, number: int, token: str) -> None:
        self.run_dir = run_dir
        self.number = number
        self.path = run_dir / "attempts" / str(number)
        self.checkpoint_dir = self.path / "checkpoint"
        self._token = token
        self._lock = (
            threading.Lock()
        )  # held by the committing thread or by the heartbeat that marks the attempt as lost
        self._lost: str | None = None

    @property
    def run_key(self) -> str:
        """Key of the run."""
        return self.run_dir.name

    @property
    def lost(self) -> str | None:
        """Reason why this process lost the attempt; None while it holds it."""
        return self._lost

    def is_ours(self) -> bool:
        """Return True if the attempt still has this process's claim. Raises OSError if it cannot be read."""
        try:
            claim = json.loads((self.path / "claim.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        return isinstance(claim, dict) and claim.get("token") == self._token

    def confirm(self) -> bool:
        """Return True if this process still holds the attempt; otherwise mark it as lost.

        A claim that cannot be read for another reason changes nothing.
        """
        with contextlib.suppress(OSError):
            if not self.is_ours():
                self.mark_lost("taken over by another worker")
        return self._lost is None

    def beat(self, record: Mapping[str, Any]) -> None:
        """Write the heartbeat. Raises OSError; FileNotFoundError if the attempt was set aside."""
        write_atomic(self.path / "heartbeat.json", json_bytes(record), durable=False)

    def mark_lost(self, reason: str) -> None:
        """Mark the attempt as lost for good; a commit in progress finishes first, a later one fails."""
        with self._lock:
            self._lost = self._lost or reason

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to metrics.jsonl. Raises OSError if it cannot be written."""
        append_record(self.path / "metrics.jsonl", record)

    def inherit_checkpoint(self) -> None:
        """Copy the newest earlier attempt's checkpoint into this one, then delete the earlier ones.

        The copy is renamed into place, so after a crash the next attempt still finds the earlier one. A run
        with a finished last attempt starts from scratch: a user deleted its result to train it again.
        """
        earlier = [path for number, path in list_attempts(self.run_dir) if number < self.number]
        if earlier and (read_json(earlier[-1] / "end.json") or {}).get("state") not in ("done", "diverged"):
            self._copy_newest(earlier)
        for path in earlier:
            remove_tree(path / "checkpoint")
            remove_tree(path / PARTIAL_COPY)
        if not self.checkpoint_dir.is_dir():
            self.checkpoint_dir.mkdir()

    def _copy_newest(self, earlier: list[Path]) -> None:
        source = next((p / "checkpoint" for p in reversed(earlier) if _has_files(p / "checkpoint")), None)
        if source is None:
            return
        copy = self.path / PARTIAL_COPY
        try:
            unfinished = shutil.ignore_patterns("*.tmp")
            shutil.copytree(source, copy, ignore=unfinished, copy_function=_copy_durably)
            copy.rename(self.checkpoint_dir)
        except BaseException:
            remove_tree(copy)
            raise
        sync_directory(self.path)

    def commit(self, payload: Mapping[str, Any]) -> None:
        """Commit `payload` as the run's result.

        Raises AttemptLost if this process lost the attempt, or the run already has a result. Raises OSError
        if it cannot be written; nothing is visible then.
        """
        data = json_bytes(payload)
        temporary = self.path / "result.tmp"
        try:
            temporary.unlink(missing_ok=True)
            create(temporary, data)
            with self._lock:
                if self._lost or not self.is_ours():
                    raise AttemptLost(self._lost or "taken over by another worker")
                committed = publish(temporary, self.run_dir / "result.json")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AttemptLost("taken over by another worker") from error
        reserve = self.path / END_IN_RESERVE
        claims = self.path.parent.glob(".claim-*")  # no worker may claim this run any more
        for leftover in (temporary, reserve, *claims):
            with contextlib.suppress(OSError):
                remove_tree(leftover) if leftover.is_dir() else leftover.unlink()
        if not committed:
            raise AttemptLost("the run already has a result")

    def end(self, state: str, reason: str | None, step: int) -> None:
        """Record the end of the attempt; a failure that cannot be written becomes failed:disk.

        Raises FileNotFoundError if the attempt was taken over, another OSError if it cannot be written.
        """
        if not self.is_ours():
            raise FileNotFoundError(f"{self.path} was taken over by another worker")
        try:
            write_end(self.path, state, reason, step)
        except OSError:
            if not state.startswith("failed:"):
                raise
            (self.path / END_IN_RESERVE).rename(self.path / "end.json")

    def drop_checkpoint(self) -> None:
        """Delete the checkpoints of a run that has its result and keeps no weights."""
        remove_tree(self.checkpoint_dir)


def write_end(attempt_dir: Path, state: str, reason: str | None, step: int) -> None:
    """Write end.json, which marks the attempt as ended. If a power failure loses it, the attempt expires."""
    end = {"state": state, "reason": reason, "step": step}
    write_atomic(attempt_dir / "end.json", json_bytes(end), durable=False)


def _copy_durably(source: str, target: str) -> None:
    """Copy a file and sync it, since the source is deleted next.

    A file that the former holder replaces at this moment is skipped: an older complete one has another name.
    """
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(source, target, follow_symlinks=False)
        with Path(target).open("rb") as file:
            os.fsync(file.fileno())


def _has_files(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except OSError:
        return False
