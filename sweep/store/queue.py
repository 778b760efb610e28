"""The queue of one worker: runs in order of FLOPs, longest first, claimed at constant cost each."""

from __future__ import annotations

from pathlib import Path

from sweep.records import Trunk
from sweep.store.attempts.active import ActiveAttempt
from sweep.store.attempts.claims import Claimer, Verdict
from sweep.store.plans import PlanEntry, plans_signature, read_entries, run_directory
from sweep.store.trunks import Trunks


class RunQueue:
    """A cursor over the sweep's runs. Busy ones are tried again once it has reached the end.

    New plans are noticed there too, so a running worker also trains the runs of a later plan.
    """

    def __init__(self, sweep_dir: Path, claimer: Claimer, retry_group: str | None = None) -> None:
        """Load the plans; `retry_group` limits the queue to the runs of that group.

        Raises InputError if `sweep_dir` has no readable plan.
        """
        self._sweep_dir = sweep_dir
        self._retry_group = retry_group
        self._claimer = claimer
        self._finished: set[str] = set()
        self._waiting: list[PlanEntry] = []
        self._load()

    def claim(self, free_bytes: int | None = None) -> tuple[PlanEntry, ActiveAttempt] | None:
        """Claim the next free run with an estimated memory of at most `free_bytes`; None if there is none.

        Raises OSError if the claim cannot be written.
        """
        while self._cursor < len(self._entries):
            self._cursor += 1
            attempt = self._try(self._entries[self._cursor - 1], free_bytes)
            if attempt is not None:
                return attempt
        if plans_signature(self._sweep_dir) != self._signature:
            self._load()
            return self.claim(free_bytes)
        waiting, self._waiting = self._waiting, []
        for index, entry in enumerate(waiting):
            attempt = self._try(entry, free_bytes)
            if attempt is not None:
                self._waiting += waiting[index + 1 :]
                return attempt
        return None

    @property
    def finished(self) -> bool:
        """True if every run of every plan has a result or was given up, as far as `claim` has seen."""
        return self._cursor == len(self._entries) and not self._waiting

    def trunk(self, entry: PlanEntry) -> Trunk | None:
        """Return the trunk that a run shares with others of the sweep; None if it shares none."""
        return self._trunks.of(entry, self._finished)

    def prune_trunk(self, entry: PlanEntry) -> None:
        """Delete the states of a run's trunk if no run needs them any more."""
        self._trunks.prune(entry, self._finished)

    def _try(self, entry: PlanEntry, free_bytes: int | None) -> tuple[PlanEntry, ActiveAttempt] | None:
        too_large = free_bytes is not None and entry.memory_bytes > free_bytes
        if too_large or self._trunks.must_wait(entry, self._finished):
            self._waiting.append(entry)
            return None
        launch = entry.experiment.launch
        outcome = self._claimer.claim(
            run_directory(self._sweep_dir, entry.run_key),
            lease_s=launch.lease_s,
            max_failures=launch.max_failures,
        )
        if outcome is Verdict.FINISHED:
            self._finished.add(entry.run_key)
            return None
        self._waiting.append(entry)  # also if it was claimed: the attempt may end without a result
        return (entry, outcome) if isinstance(outcome, ActiveAttempt) else None

    def _has_result(self, key: str) -> bool:
        return (run_directory(self._sweep_dir, key) / "result.json").exists()

    def _load(self) -> None:
        self._signature = plans_signature(self._sweep_dir)
        # A run that was given up may have been retried since; one with a result stays finished.
        self._finished = {key for key in self._finished if self._has_result(key)}
        entries = read_entries(self._sweep_dir, self._retry_group)
        if self._retry_group is None:
            self._trunks = Trunks(self._sweep_dir, entries)
        else:  # runs of a retry group share trunks with the other runs of the sweep, so keep those in view
            claimed = {entry.run_key for entry in entries}
            self._trunks = Trunks(self._sweep_dir, read_entries(self._sweep_dir), claimed)
        self._entries = [entry for entry in entries if entry.run_key not in self._finished]
        self._cursor, self._waiting = 0, []
