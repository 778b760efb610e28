"""Runs that leave the band of their peers' training curves: planted faults, and clean sweeps.

curves.csv holds training losses, averaged between EDGES, of sweeps that were trained: experiment `demo` on
four budgets and on five, single runs of it with a learning rate four times as high, `demo` on a former
corpus, and experiment `smoke` with other sizes and seeds on bytes.
"""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from sweep.fit.checks.collapse import (
    EDGES,
    Trajectory,
    departures,
    live_departure,
    peer_band,
    student_bound,
    trajectories,
)
from sweep.records import CurvePoint, Point

N_STEPS = 500
STEPS = np.unique(np.round(np.concatenate([np.geomspace(1, 50, 20), np.arange(60, N_STEPS + 1, 10)])))
X = (STEPS - np.diff(STEPS, prepend=0) / 2) / N_STEPS  # middles of the intervals, as fractions
LR = (1 + np.cos(np.pi * X)) / 2
FLOOR = 1.8


def planted(n, d, rng, *, lr=1.0, noise=0.008, seed_sd=0.002):
    """Loss of a power law in size and tokens so far, a term that goes with the learning rate, and noise.

    The noise of a record is that of its batches; the runs of a cell also differ by their seeds. A learning
    rate `lr` times too high adds to the loss while it is high, and a part of it remains.
    """
    reducible = 9 * n**-0.25 + 60 * (X * d + 500) ** -0.4
    reducible *= 1 + 0.1 * LR * np.sqrt(lr) + 0.01 * np.log(lr) ** 2
    loss = FLOOR + reducible * np.exp(rng.normal(0, seed_sd))
    return loss * np.exp(rng.normal(0, noise, X.size))


def curve(run, n, d, loss):
    return Trajectory(run=run, n_params=n, n_tokens=d, n_steps=N_STEPS, steps=STEPS, loss=loss)


def grid(rng, bad=None, *, n_seeds=2, sizes=5, **faulty):
    """An IsoFLOP grid of two budgets; the runs named in `bad` have the settings `faulty`."""
    runs = []
    for budget in (1e9, 3e9):
        for n in np.geomspace(1e4, 6e4, sizes):
            for seed in range(n_seeds):
                name, d = f"{budget:g}-{len(runs) // n_seeds % sizes}-{seed}", budget / (6 * n)
                settings = faulty if bad and name in bad else {}
                runs.append(curve(name, n, d, planted(n, d, rng, **settings)))
    return runs


def damaged(runs, name, change):
    return [replace(run, loss=change(run.loss)) if run.run == name else run for run in runs]


def test_clean_sweeps_raise_at_most_one_alarm_in_two_hundred_runs():
    found = [one for seed in range(10) for one in departures(grid(np.random.default_rng(seed)))]
    assert len(found) <= 1


def test_one_sweep_in_a_hundred_raises_an_alarm():
    """A band with the scatter of its own runs alone is too narrow, and raises five on these seeds."""
    alarms = [departures(grid(np.random.default_rng(seed))) for seed in range(50000, 50100)]
    assert sum(map(bool, alarms)) <= 2


@pytest.mark.parametrize("bad", ["3e+09-2-0", "1e+09-0-1", "3e+09-4-0"])
@pytest.mark.parametrize("irreducible", [None, FLOOR, 0.0])
def test_a_learning_rate_four_times_too_high_is_found_and_no_other_run(bad, irreducible):
    runs = [grid(np.random.default_rng(seed), {bad}, lr=4.0) for seed in range(5)]
    found = [one for each in runs for one in departures(each, irreducible)]
    assert len(found) >= 4
    assert {(one.run, one.kind) for one in found} == {(bad, "mis-tuned")}
    assert all(one.excess > 0.04 and one.step <= 0.5 * N_STEPS and one.score > 1 for one in found)


def test_a_run_with_noisier_batches_raises_no_alarm():
    found = []
    for seed in range(20):
        found += departures(grid(np.random.default_rng(seed), {"1e+09-4-0"}, noise=0.04))
    assert len(found) <= 1


def test_two_bad_runs_of_one_cell_do_not_hide_each_other():
    bad = {"3e+09-2-0", "3e+09-2-1"}
    assert {one.run for one in departures(grid(np.random.default_rng(0), bad, lr=4.0))} == bad


def test_a_diverging_run_is_named_with_the_step_where_it_left():
    rise = np.where(X > 0.6, np.exp(0.6 * (X - 0.6)), 1.0)
    runs = damaged(grid(np.random.default_rng(1)), "3e+09-1-0", lambda loss: loss * rise)
    (found,) = departures(runs)
    assert (found.run, found.kind) == ("3e+09-1-0", "diverging")
    assert 0.6 * N_STEPS < found.step <= 0.85 * N_STEPS
    assert "looks diverging: left the band of its peers at step" in str(found)
    assert f"of {N_STEPS}, reducible loss" in str(found)


@pytest.mark.parametrize(
    ("name", "change", "side"),
    [
        ("1e+09-3-0", lambda loss: np.where(X > 0.5, 1.06 * loss, loss), "above"),
        ("3e+09-3-1", lambda loss: 0.94 * loss, "below"),
    ],
)
def test_a_jump_and_a_loss_that_is_too_low_are_faults(name, change, side):
    (found,) = departures(damaged(grid(np.random.default_rng(2)), name, change))
    assert (found.run, found.kind) == (name, "faulty")
    assert f"% {side} theirs" in str(found)


def test_too_few_peers_give_no_verdict():
    runs = grid(np.random.default_rng(0), {"3e+09-1-0"}, n_seeds=1, sizes=3, lr=16.0)
    assert departures(runs) == ()
    assert departures(()) == ()
    assert peer_band(()) is None
    assert live_departure(runs[0], peer_band(runs * 2)) is None


def test_one_size_and_one_duration_make_a_band_too():
    rng = np.random.default_rng(3)
    runs = [curve(f"seed {i}", 1e4, 1e5, planted(1e4, 1e5, rng)) for i in range(12)]
    assert departures(runs) == ()
    hot = curve("hot", 1e4, 1e5, planted(1e4, 1e5, rng, lr=4.0))
    assert [one.run for one in departures([*runs, hot])] == ["hot"]


@cache
def trained():
    """The curves of curves.csv by sweep and run."""
    sweeps = {}
    with (Path(__file__).parent / "curves.csv").open() as file:
        for row in csv.DictReader(file):
            means = [float(row[f"to_{edge:.2f}"]) for edge in EDGES[1:]]
            n_steps = int(row["n_steps"])
            sweeps.setdefault(row["sweep"], {})[row["run"]] = Trajectory(
                run=row["run"], n_params=float(row["n_params"]), n_tokens=float(row["n_tokens"]),
                n_steps=n_steps, steps=EDGES[1:] * n_steps, loss=np.array(means), start=0.1 * n_steps,
            )  # fmt: skip
    return sweeps


def test_trained_sweeps_raise_no_alarm():
    clean = {name: runs for name, runs in trained().items() if "learning rate" not in name}
    assert sum(map(len, clean.values())) >= 130
    for name, runs in clean.items():
        assert departures(list(runs.values())) == (), name


def test_a_trained_run_with_four_times_the_learning_rate_is_found():
    """The one that is not has the largest model and the fewest steps of its sweep."""
    hot, found = trained()["demo, learning rate x 4"], {}
    for name, run in hot.items():
        others = [peer for peer in trained()["demo"].values() if peer.run != name]
        found[name] = departures([*others, run])
        live = live_departure(run, peer_band(others))
        assert (live is None) == (found[name] == ())
    assert [name for name, outside in found.items() if not outside] == ["8e10-d44-L2-s0"]
    assert {(one.run, one.kind) for each in found.values() for one in each} == {
        (name, "mis-tuned") for name in hot if name != "8e10-d44-L2-s0"
    }
    assert all(one.step < 0.5 * one.n_steps for each in found.values() for one in each)


def test_equal_curves_make_a_band_without_width():
    runs = [curve(str(i), 1e4 * (1 + i % 3), 1e5, np.full(X.size, 2.0)) for i in range(9)]
    assert departures(runs) == ()
    assert [one.run for one in departures(damaged(runs, "4", lambda loss: 1.01 * loss))] == ["4"]


def cut(run, fraction, start=0.0):
    here = (start * N_STEPS < run.steps) & (run.steps <= fraction * N_STEPS)
    first = 0 if start == 0 else int(run.steps[here][0])
    kept = here if start == 0 else here & (run.steps > first)
    return replace(run, steps=run.steps[kept], loss=run.loss[kept], start=first)


def test_a_run_in_progress_is_stopped_only_above_the_band_and_before_its_end():
    rng = np.random.default_rng(4)
    runs = [run for run in grid(rng) if run.run != "3e+09-2-0"]
    n, d = next((run.n_params, run.n_tokens) for run in runs if run.run == "3e+09-2-1")
    peers = peer_band(runs)
    hot = curve("hot", n, d, planted(n, d, rng, lr=4.0))
    calm = curve("calm", n, d, planted(n, d, rng))
    low = replace(calm, run="low", loss=0.9 * calm.loss)
    fractions = np.arange(0.05, 1.0, 0.05)
    stops = [fraction for fraction in fractions if live_departure(cut(hot, fraction), peers)]
    assert stops
    assert stops[0] <= 0.5
    for run in (calm, low):
        assert not any(live_departure(cut(run, fraction), peers) for fraction in fractions)
    resumed = live_departure(cut(hot, 0.6, start=0.3), peers)
    assert resumed is not None
    assert resumed.step > 0.3 * N_STEPS
    assert live_departure(cut(hot, 0.33, start=0.3), peers) is None  # too few records since


def test_a_run_far_from_its_peers_is_not_stopped():
    rng = np.random.default_rng(5)
    large = curve("large", 1e7, 1e8, 2 * planted(1e7, 1e8, rng))
    assert live_departure(large, peer_band(grid(rng))) is None


@pytest.mark.parametrize("df", [5, 12, 60])
@pytest.mark.parametrize("level", [1e-2, 1e-4, 1e-6])
def test_bounds_are_students(level, df):
    """Above the exact ones by at most a tenth, for the fewest degrees of freedom."""
    assert 0.999 < student_bound(level, df) / student.isf(level / 2, df) < (1.1 if df == 5 else 1.02)


def test_peers_share_arm_schedule_and_corpus_and_have_finished():
    records = (CurvePoint(step=1, n_tokens=8, flops=9, train_loss=3.0, lr=0.1),)
    point = Point(run_key="a", n_params=10.0, n_tokens=80.0, n_steps=10, schedule="cosine")
    changes = [{}, {"schedule": "wsd"}, {"arm": "x"}, {"corpus_sha256": "y"}, {"status": "diverged"}, {}]
    points = [replace(point, run_key=str(at), **change) for at, change in enumerate(changes)]
    groups = trajectories(points, {str(at): records for at in range(len(points))})
    assert [[one.run for one in group] for group in groups] == [["0", "5"], ["1"], ["2"], ["3"]]
    assert trajectories(points, {}) == []
