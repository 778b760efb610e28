"""The attempt this process holds: its directory, its metrics, its end and its commit."""

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
    replace,
    sync_directory,
)

COPY_UNDER_WAY = "checkpoint.tmp"

END_IN_RESERVE = "end.reserve"
"""Written with the claim, and renamed to end.json when a full disk takes no more: a rename needs no room."""

DISK_REFUSED = {"state": "failed:disk", "reason": "the disk refused even the note of the end", "step": 0}


class AttemptLost(Exception):
    """This process no longer holds the attempt: whatever it has is discarded."""


class HeldAttempt:
    """An attempt claimed by this process; every call but `log` may find that it is lost.

    All paths go through the attempt's name. Once another process has set the directory aside, the name is
    gone, and neither a commit, nor an end, nor a heartbeat, nor a checkpoint of ours can land anywhere.
    """

    def __init__(self, *, run_dir: Path, number: int, token: str) -> None:
        self.run_dir = run_dir
        self.number = number
        self.path = run_dir / "attempts" / str(number)
        self.checkpoint_dir = self.path / "checkpoint"
        self._token = token
        self._lock = threading.Lock()  # between the committing thread and the heartbeat's verdict
        self._lost: str | None = None

    @property
    def run_key(self) -> str:
        """Key of the run attempted."""
        return self.run_dir.name

    @property
    def lost(self) -> str | None:
        """Why this attempt is no longer ours; None while it is."""
        return self._lost

    def is_ours(self) -> bool:
        """Whether the attempt's name still leads to our claim. Raises OSError when that cannot be read."""
        try:
            claim = json.loads((self.path / "claim.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        return isinstance(claim, dict) and claim.get("token") == self._token

    def confirm(self) -> bool:
        """Whether the attempt is still ours; counted out for good when its name leads elsewhere.

        A read that fails for another reason is no evidence either way.
        """
        with contextlib.suppress(OSError):
            if not self.is_ours():
                self.count_out("taken over by another worker")
        return self._lost is None

    def beat(self, record: Mapping[str, Any]) -> None:
        """Write the heartbeat. Raises OSError when it cannot, FileNotFoundError when it was set aside."""
        replace(self.path / "heartbeat.json", json_bytes(record), durable=False)

    def count_out(self, reason: str) -> None:
        """Give the attempt up, once and for all; a commit under way finishes first, a later one fails."""
        with self._lock:
            self._lost = self._lost or reason

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to metrics.jsonl. Raises OSError when the disk refuses."""
        append_record(self.path / "metrics.jsonl", record)

    def inherit_checkpoint(self) -> None:
        """Copy the newest earlier attempt's checkpoint into this one, then delete the earlier ones.

        The copy appears by rename, so a crash on the way leaves the earlier one for the next taker. A run
        whose last attempt finished starts from nothing: somebody deleted its result to train it again.
        """
        earlier = [path for number, path in list_attempts(self.run_dir) if number < self.number]
        if earlier and (read_json(earlier[-1] / "end.json") or {}).get("state") not in ("done", "diverged"):
            self._copy_newest(earlier)
        for path in earlier:
            remove_tree(path / "checkpoint")
            remove_tree(path / COPY_UNDER_WAY)
        if not self.checkpoint_dir.is_dir():
            self.checkpoint_dir.mkdir()

    def _copy_newest(self, earlier: list[Path]) -> None:
        source = next((p / "checkpoint" for p in reversed(earlier) if _has_files(p / "checkpoint")), None)
        if source is None:
            return
        copy = self.path / COPY_UNDER_WAY
        try:
            unfinished = shutil.ignore_patterns("*.tmp")
            shutil.copytree(source, copy, ignore=unfinished, copy_function=_copy_durably)
            copy.rename(self.checkpoint_dir)
        except BaseException:
            remove_tree(copy)
            raise
        sync_directory(self.path)

    def commit(self, payload: Mapping[str, Any]) -> None:
        """Make `payload` the run's result.

        Raises AttemptLost when the attempt is not ours any more, or the run already has a result.
        Raises OSError when the disk refuses; nothing is visible then.
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
        claims = self.path.parent.glob(".claim-*")  # nobody may claim this run now
        for leftover in (temporary, reserve, *claims):
            with contextlib.suppress(OSError):
                remove_tree(leftover) if leftover.is_dir() else leftover.unlink()
        if not committed:
            raise AttemptLost("the run already has a result")

    def end(self, state: str, reason: str | None, step: int) -> None:
        """Record how the attempt ended; a failure that the disk does not let us record is one of the disk.

        Raises FileNotFoundError when it was taken over, another OSError when the disk refuses.
        """
        if not self.is_ours():
            raise FileNotFoundError(f"{self.path} is not ours any more")
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
    """Write end.json: nobody works on the attempt any more. Lost in a power failure, the attempt expires."""
    end = {"state": state, "reason": reason, "step": step}
    replace(attempt_dir / "end.json", json_bytes(end), durable=False)


def _copy_durably(source: str, target: str) -> None:
    """The source is deleted next, so the copy must be on the disk.

    A file that its writer, a zombie by now, replaced in this moment is left out: what was whole before is
    there under another name.
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
