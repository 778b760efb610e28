"""Planted sweeps, fitted once for all tests of figures."""

from __future__ import annotations

import pytest

from sweep.report.results import SweepResults
from tests.report.figures.planted import planted_surfaces, planted_sweep


@pytest.fixture(scope="session")
def sweep() -> SweepResults:
    return planted_sweep()


@pytest.fixture(scope="session")
def surfaces() -> SweepResults:
    return planted_surfaces()
