"""Trunks shared by runs of a sweep: paths of their states, waiting for them, and their deletion.

A state is an optimisation: if it is missing or damaged, a run trains from an earlier state or from scratch,
with the same result.
"""

from __future__ import annotations

from collections.abc import Container, Sequence, Set
from pathlib import Path

from sweep.records import Trunk, trunk_state
from sweep.store.files import remove_tree
from sweep.store.plans import PlanEntry, run_directory


class Trunks:
    """The trunks that several runs of a sweep share."""

    def __init__(
        self, sweep_dir: Path, entries: Sequence[PlanEntry], claimed: Set[str] | None = None
    ) -> None:
        """Group `entries`, all runs of the sweep in the order in which they are claimed, by trunk.

        `claimed` holds the keys of the runs that workers now train, None for all; others are not waited for.
        """
        self._sweep_dir, self._claimed = sweep_dir, claimed
        groups: dict[str, list[PlanEntry]] = {}
        for entry in entries:
            if entry.trunk is not None:
                groups.setdefault(entry.trunk, []).append(entry)
        self._groups = {key: group for key, group in groups.items() if len(group) > 1}

    def of(self, entry: PlanEntry, finished: Container[str]) -> Trunk | None:
        """Return the trunk that a run shares with others; None if no other run is on it.

        `finished` holds keys of runs that need no state any more, in addition to those with a result.
        """
        group = self._groups.get(entry.trunk or "")
        if group is None or entry.trunk is None:
            return None
        others = (other for other in group if other != entry and not self._is_done(other, finished))
        steps = {other.branch_step for other in others if 0 < other.branch_step <= entry.branch_step}
        return Trunk(
            key=entry.trunk,
            directory=self._directory(entry.trunk),
            own_step=entry.branch_step,
            other_steps=tuple(sorted(steps)),
        )

    def must_wait(self, entry: PlanEntry, finished: Container[str]) -> bool:
        """Return True if an earlier run in the queue will save the state from which this run branches.

        On a device of the same speed, the run would not reach its branch point sooner by itself. Runs wait
        for earlier ones only, so there is no deadlock, and never for a run that was given up.
        """
        group = self._groups.get(entry.trunk or "")
        if group is None or entry.trunk is None or not entry.branch_step:
            return False
        if trunk_state(self._directory(entry.trunk), entry.branch_step).is_dir():
            return False
        earlier = group[: group.index(entry)]
        return any(
            other.branch_step >= entry.branch_step and not self._is_done(other, finished)
            for other in earlier
            if self._claimed is None or other.run_key in self._claimed
        )

    def prune(self, entry: PlanEntry, finished: Container[str]) -> None:
        """Delete the states of the run's trunk once every run on it is done."""
        group = self._groups.get(entry.trunk or "")
        if group and entry.trunk and all(self._is_done(other, finished) for other in group):
            remove_tree(self._directory(entry.trunk))

    def _directory(self, key: str) -> Path:
        return self._sweep_dir / "trunks" / key

    def _is_done(self, entry: PlanEntry, finished: Container[str]) -> bool:
        run_dir = run_directory(self._sweep_dir, entry.run_key)
        return entry.run_key in finished or (run_dir / "result.json").exists()
