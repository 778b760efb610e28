"""The order in which one worker asks for runs: longest first, each claim at constant cost."""

from __future__ import annotations

from pathlib import Path

from sweep.records import Trunk
from sweep.store.attempts.active import HeldAttempt
from sweep.store.attempts.claims import Claimer, Verdict
from sweep.store.plans import PlanEntry, plans_signature, read_entries, run_directory
from sweep.store.trunks import Trunks


class RunQueue:
    """A cursor over the sweep's runs. Those found busy are asked for again once it has reached the end.

    Plans added meanwhile are noticed there too, so a live worker also trains what a later plan asks for.
    """

    def __init__(self, sweep_dir: Path, claimer: Claimer, pardon: str | None = None) -> None:
        """`pardon` limits it to the runs pardoned under that name.

        Raises InputError when `sweep_dir` holds no readable plan.
        """
        self._sweep_dir = sweep_dir
        self._pardon = pardon
        self._claimer = claimer
        self._finished: set[str] = set()
        self._waiting: list[PlanEntry] = []
        self._load()

    def claim(self, free_bytes: int | None = None) -> tuple[PlanEntry, HeldAttempt] | None:
        """The next free run whose estimated memory is within `free_bytes`, claimed; None when there is none.

        Raises OSError when the disk refuses.
        """
        while self._cursor < len(self._entries):
            self._cursor += 1
            held = self._try(self._entries[self._cursor - 1], free_bytes)
            if held is not None:
                return held
        if plans_signature(self._sweep_dir) != self._signature:
            self._load()
            return self.claim(free_bytes)
        waiting, self._waiting = self._waiting, []
        for index, entry in enumerate(waiting):
            held = self._try(entry, free_bytes)
            if held is not None:
                self._waiting += waiting[index + 1 :]
                return held
        return None

    @property
    def finished(self) -> bool:
        """Whether every run of every plan has a result or was given up, as far as `claim` has seen."""
        return self._cursor == len(self._entries) and not self._waiting

    def trunk(self, entry: PlanEntry) -> Trunk | None:
        """The part of a run that others of the sweep share; None when none does."""
        return self._trunks.of(entry, self._finished)

    def prune_trunk(self, entry: PlanEntry) -> None:
        """Delete the states of a run's trunk when nobody needs them any more."""
        self._trunks.prune(entry, self._finished)

    def _try(self, entry: PlanEntry, free_bytes: int | None) -> tuple[PlanEntry, HeldAttempt] | None:
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
        self._waiting.append(entry)  # also one we now hold: its attempt may end without a result
        return (entry, outcome) if isinstance(outcome, HeldAttempt) else None

    def _has_result(self, key: str) -> bool:
        return (run_directory(self._sweep_dir, key) / "result.json").exists()

    def _load(self) -> None:
        self._signature = plans_signature(self._sweep_dir)
        # A run that was given up may have been pardoned since; one with a result stays finished.
        self._finished = {key for key in self._finished if self._has_result(key)}
        entries = read_entries(self._sweep_dir, self._pardon)
        if self._pardon is None:
            self._trunks = Trunks(self._sweep_dir, entries)
        else:  # pardoned runs branch from, and must leave, what the sweep's other runs share with them
            claimed = {entry.run_key for entry in entries}
            self._trunks = Trunks(self._sweep_dir, read_entries(self._sweep_dir), claimed)
        self._entries = [entry for entry in entries if entry.run_key not in self._finished]
        self._cursor, self._waiting = 0, []
