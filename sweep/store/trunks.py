"""Trunks that runs of a sweep share: where their states lie, who waits for one, when they are done with.

A state is an optimisation: without it, or with a damaged one, a run trains from an earlier state or from
nothing, to the same result.
"""

from __future__ import annotations

from collections.abc import Container, Sequence, Set
from pathlib import Path

from sweep.records import Trunk, trunk_state
from sweep.store.files import remove_tree
from sweep.store.plans import PlanEntry, run_directory


class Trunks:
    """The trunks of a sweep's runs, as far as several runs of its plans share one."""

    def __init__(
        self, sweep_dir: Path, entries: Sequence[PlanEntry], claimed: Set[str] | None = None
    ) -> None:
        """`entries` are all runs of the sweep, in the order in which they are claimed.

        `claimed` are the keys of those that are waited for, None for all: nobody may train the others now.
        """
        self._sweep_dir, self._claimed = sweep_dir, claimed
        groups: dict[str, list[PlanEntry]] = {}
        for entry in entries:
            if entry.trunk is not None:
                groups.setdefault(entry.trunk, []).append(entry)
        self._groups = {key: group for key, group in groups.items() if len(group) > 1}

    def of(self, entry: PlanEntry, finished: Container[str]) -> Trunk | None:
        """What the run shares with others; None when nobody else is on its trunk.

        `finished` are keys of runs that need no state any more, besides those with a result.
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
        """Whether a run that is claimed before this one will leave the state that this one branches from.

        Whoever waits for its branch point would reach it no sooner alone, on a device of the same speed. Runs
        wait for earlier ones only, so somebody can always go on; one that is given up is waited for no more.
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
