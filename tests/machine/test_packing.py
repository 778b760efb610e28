"""The best packing for planted measurements, and the file of measurements."""

from __future__ import annotations

import pytest

from sweep.errors import InputError
from sweep.machine.packing import (
    ALONE,
    PackingRow,
    best_packing,
    packing_file,
    packing_json,
    remembered,
)


def rows(rates, mps=False):
    """Rows from {n_params: {n_workers: steps per second}}."""
    return [
        PackingRow(n_params=size, n_workers=n, mps=mps, steps_per_second=rate)
        for size, by_number in rates.items()
        for n, rate in by_number.items()
    ]


def test_the_work_decides_which_size_counts():
    """Small models gain a factor of three with four workers, large ones lose a fifth."""
    measured = rows({10**5: {1: 10, 2: 20, 4: 30}, 10**8: {1: 1.0, 2: 0.95, 4: 0.8}})
    small = best_packing(measured, [(10**5, 60.0)])
    assert (small.n_workers, small.speedup) == (4, pytest.approx(3.0))
    assert best_packing(measured, [(10**8, 60.0)]) == ALONE
    mixed = best_packing(measured, [(2 * 10**5, 80.0), (5 * 10**7, 20.0)])
    assert mixed.n_workers == 4
    assert mixed.speedup == pytest.approx(100 / (80 / 3 + 20 / 0.8))


def test_more_workers_must_be_worth_it():
    assert best_packing(rows({10: {1: 1.0, 2: 1.04}}), [(10, 1.0)]) == ALONE
    assert best_packing(rows({10: {1: 1.0, 2: 1.9, 4: 1.95}}), [(10, 1.0)]).n_workers == 2


def test_mps_is_chosen_where_it_is_faster():
    measured = rows({10: {1: 1.0, 4: 1.1}}) + rows({10: {1: 1.0, 4: 1.8}}, mps=True)
    chosen = best_packing(measured, [(10, 1.0)])
    assert (chosen.n_workers, chosen.mps, chosen.speedup) == (4, True, pytest.approx(1.8))


def test_what_was_not_measured_at_every_size_is_no_choice():
    measured = rows({10: {1: 1.0, 8: 8.0}, 1000: {1: 1.0}})
    assert best_packing(measured, [(10, 1.0)]) == ALONE
    assert best_packing([], [(10, 1.0)]) == ALONE
    assert best_packing(measured, []) == ALONE


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    packing_file().parent.mkdir(parents=True)


@pytest.mark.usefixtures("cache")
def test_each_device_is_remembered():
    first, second = rows({10: {1: 1.0}}), rows({20: {1: 2.0, 2: 3.5}})
    assert remembered("one") == ()
    packing_file().write_bytes(packing_json("one", first))
    packing_file().write_bytes(packing_json("two", second))
    assert (list(remembered("one")), list(remembered("two"))) == (first, second)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"devices": []}',
        '{"devices": {"one": 3}}',
        '{"devices": {"one": [{"n": 1}]}}',
        '{"devices": {"one": [{"n_params": "x", "n_workers": 1, "mps": false, "steps_per_second": 1}]}}',
        '{"devices": {"one": [{"n_params": 5, "n_workers": 1, "mps": false, "steps_per_second": 0}]}}',
        '{"devices": {"one": [{"n_params": 5, "n_workers": 1, "mps": false, "steps_per_second": NaN}]}}',
    ],
)
def test_a_damaged_record_is_named(content):
    packing_file().write_text(content)
    with pytest.raises(InputError, match=r"packing\.json is damaged: delete it"):
        remembered("one")
