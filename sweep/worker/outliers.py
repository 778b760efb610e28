"""Comparison of a run in progress with the finished runs of its sweep (trainer.stop_outliers)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from sweep import flops
from sweep.config import RunConfig
from sweep.errors import Outlier, SweepError
from sweep.fit.checks.collapse import (
    EDGES,
    Band,
    Trajectory,
    live_departure,
    peer_band,
    peer_group,
    trajectories,
)
from sweep.identity import run_key
from sweep.records import Point
from sweep.store.run_store import RunStore

REFRESH_S = 60.0  # age from which the finished runs are read again


class OutlierWatch:
    """The training curve of one run since this attempt began, and those of its peers."""

    def __init__(self, store: RunStore, run: RunConfig) -> None:
        self._store, self._run, self._key = store, run, run_key(run)
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._band: Band | None = None
        self._read_at = -math.inf
        self._n_edges = 0  # passed at the last comparison

    def check(self, record: Mapping[str, Any]) -> None:
        """Add a record of the run. Raises Outlier if the run is above the band of its peers."""
        loss, step = record.get("train_loss"), record.get("step")
        if loss is None or step is None:
            return
        self._steps.append(int(step))
        self._losses.append(float(loss))
        n_edges = int(np.searchsorted(EDGES, step / self._run.n_steps, side="right"))
        if n_edges == self._n_edges:
            return
        self._n_edges = n_edges
        band = self._current_band()
        found = None if band is None else live_departure(self._trajectory(), band)
        if band is not None and found is not None:
            raise Outlier(f"{found} ({len(band.curves)} finished runs); trainer.stop_outliers=false keeps it")

    def _trajectory(self) -> Trajectory:
        """Return the curve so far, without a resumed run's first record, which averages earlier steps."""
        skipped = 0 if self._steps[0] == 1 else 1
        return Trajectory(
            run=self._key,
            n_params=flops.n_params(self._run.model).total,
            n_tokens=self._run.n_tokens,
            n_steps=self._run.n_steps,
            start=self._steps[0] if skipped else 0,
            steps=np.array(self._steps[skipped:], dtype=np.float64),
            loss=np.array(self._losses[skipped:], dtype=np.float64),
        )

    def _current_band(self) -> Band | None:
        if time.monotonic() - self._read_at > REFRESH_S:
            self._read_at = time.monotonic()
            with contextlib.suppress(OSError, SweepError):  # the run goes on without a comparison
                self._band = peer_band(self._read_peers())
        return self._band

    def _read_peers(self) -> list[Trajectory]:
        stored, run = self._store.points(), self._run
        excluded = {exclusion.run_key for exclusion in stored.excluded}
        own = Point(
            arm=run.arm,
            schedule=run.schedule.name,
            optimizer=run.optimizer.name,
            parametrization=run.parametrization,
            corpus_sha256=run.corpus_sha256,
            tokenizer_sha256=run.tokenizer_sha256,
            seq_len=run.model.seq_len,
        )
        points = [
            point
            for point in stored.points
            if point.run_key not in excluded and peer_group(point) == peer_group(own)
        ]
        return [curve for group in trajectories(points, stored.curves) for curve in group]
