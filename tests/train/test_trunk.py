"""Cooldown branches: every run is bit-equal to the same run trained alone, however it came by its trunk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sweep import flops
from sweep.config import RunSchedule
from sweep.config.compose import compose_experiment
from sweep.errors import Interrupted
from sweep.identity import trunk_key
from sweep.records import BOOKKEEPING_COLUMNS, Plan, Trunk, trunk_state
from sweep.store.run_store import RunStore
from sweep.train.checkpoint import load_latest
from sweep.train.loop import train
from sweep.worker.__main__ import work
from tests.plans import planned
from tests.train.sessions import Session, placement, run_on

STEPS = (30, 44, 60)  # of the three runs of the trunk


def branch(corpus, n_steps, **changes):
    decay = RunSchedule(name="wsd", warmup_steps=4, decay_steps=n_steps // 5, final_lr_frac=0.1)
    return run_on(corpus, schedule=decay, n_tokens=256 * n_steps, **changes)


def trunk_of(run, directory, *others):
    return Trunk(
        key=trunk_key(run),
        directory=directory,
        own_step=run.branch_step,
        other_steps=tuple(other.branch_step for other in others),
    )


def science(result):
    """Return all results except bookkeeping, the curve bit for bit."""
    excluded = {"n_tokens_shared", "ledger", "step_s"} | BOOKKEEPING_COLUMNS
    return {name: getattr(result, name) for name in type(result).__slots__ if name not in excluded}


def weights(directory):
    return load_latest(directory).tensors


def carry_out(corpus, run, directory, trunk, **changes):
    directory.mkdir(exist_ok=True)
    session = Session(directory, **changes)
    return train(run, placement(corpus, trunk=trunk, keep_checkpoint=True), session), session


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """Each run from scratch, with nobody to share with: result and final state."""
    directory = tmp_path_factory.mktemp("alone")
    return {
        n: (carry_out(corpus, branch(corpus, n), directory / str(n), None)[0], directory / str(n))
        for n in STEPS
    }


def test_a_branch_is_bit_equal_to_the_run_trained_alone(corpus, tmp_path, alone):
    short, middle, long = (branch(corpus, n) for n in STEPS)
    states = tmp_path / "trunk"
    result, _ = carry_out(corpus, long, tmp_path / "long", trunk_of(long, states, short, middle))
    assert science(result) == science(alone[60][0])
    assert result.n_tokens_shared == 0
    assert sorted(path.name for path in states.iterdir()) == [
        trunk_state(states, run.branch_step).name for run in (short, middle)
    ]
    for run in (middle, short):
        directory = tmp_path / str(run.n_steps)
        result, session = carry_out(corpus, run, directory, trunk_of(run, states))
        expected, its_directory = alone[run.n_steps]
        assert session.records[0] == {"event": "branched", "step": run.branch_step}
        assert session.steps[0] == run.branch_step + 1
        assert science(result) == science(expected)
        assert result.n_tokens_shared == run.branch_step * 256
        ours, theirs = weights(directory), weights(its_directory)
        for name in theirs:
            assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("stop", [*(pytest.param(n, marks=pytest.mark.ci) for n in (3, 24)), 30])
def test_a_trunk_preempted_anywhere_leaves_the_same_states(corpus, tmp_path, alone, stop):
    """Before, at and after the branch point."""
    short, _, long = (branch(corpus, n) for n in STEPS)
    trunk, states = trunk_of(long, tmp_path / "trunk", short), tmp_path / "trunk"
    with pytest.raises(Interrupted):
        carry_out(corpus, long, tmp_path / "long", trunk, stop_after=stop)
    result, _ = carry_out(corpus, long, tmp_path / "long", trunk)
    assert science(result) == science(alone[60][0])
    result, session = carry_out(corpus, short, tmp_path / "short", trunk_of(short, states))
    assert session.steps[0] == short.branch_step + 1
    assert science(result) == science(alone[30][0])


def test_a_branch_preempted_in_its_cooldown_goes_on_there(corpus, tmp_path, alone):
    short, _, long = (branch(corpus, n) for n in STEPS)
    carry_out(corpus, long, tmp_path / "long", trunk_of(long, tmp_path / "trunk", short))
    trunk = trunk_of(short, tmp_path / "trunk")
    with pytest.raises(Interrupted):
        carry_out(corpus, short, tmp_path / "short", trunk, stop_after=27)
    result, session = carry_out(corpus, short, tmp_path / "short", trunk)
    assert session.steps[0] == 28
    assert result.n_tokens_shared == short.branch_step * 256
    assert science(result) == science(alone[30][0])


@pytest.mark.parametrize("damage", ["truncated", "foreign", pytest.param("gone", marks=pytest.mark.ci)])
def test_without_a_sound_state_the_run_trains_what_is_left_itself(corpus, tmp_path, alone, damage):
    short, middle, long = (branch(corpus, n) for n in STEPS)
    states = tmp_path / "trunk"
    carry_out(corpus, long, tmp_path / "long", trunk_of(long, states, short, middle))
    place = trunk_state(states, middle.branch_step)
    if damage == "truncated":
        blob = next(place.glob("*.safetensors"))
        blob.write_bytes(blob.read_bytes()[:-1])
    trunk = trunk_of(middle, states)
    if damage == "foreign":
        trunk = replace(trunk, key="0" * 16)
    if damage == "gone":
        place.rename(tmp_path / "elsewhere")
    result, session = carry_out(corpus, middle, tmp_path / "middle", trunk)
    assert session.steps[0] == (1 if damage == "foreign" else short.branch_step + 1)
    assert science(result) == science(alone[44][0])
    assert not place.exists()


def test_a_disk_that_refuses_states_costs_only_the_short_cut(corpus, tmp_path, alone):
    short, _, long = (branch(corpus, n) for n in STEPS)
    (tmp_path / "trunk").write_text("in the way")
    trunk = trunk_of(long, tmp_path / "trunk" / "below", short)
    assert science(carry_out(corpus, long, tmp_path / "long", trunk)[0]) == science(alone[60][0])


def test_a_sweep_of_branches_spends_what_it_computes_and_clusters_them(corpus, tmp_path, alone):
    experiment = compose_experiment(
        ["experiment=smoke", "trainer.device=cpu", f"data_dir={corpus.directory.parents[1]}"]
    )
    runs = [replace(branch(corpus, n), name=f"run-{n}") for n in STEPS]
    other_seed = replace(branch(corpus, 30, seed=1), name="other seed")
    store = RunStore(tmp_path)
    plan = tuple(planned(run) for run in (*runs, other_seed))
    store.add_plan(Plan(experiment=experiment, runs=plan, dropped=(), warnings=()))
    assert work(tmp_path, train=train).n_done == 4
    points = {point.name: point for point in store.points().points}
    of_trunk = [points[f"run-{n}"] for n in STEPS]
    per_step = flops.count(runs[0].model, 256).flops
    assert [point.loss for point in of_trunk] == [alone[n][0].loss for n in STEPS]
    assert [point.flops for point in of_trunk] == [n * per_step for n in STEPS]
    assert [point.flops_spent for point in of_trunk] == [6 * per_step, 8 * per_step, 60 * per_step]
    assert {point.trunk for point in of_trunk} == {trunk_key(runs[0])} != {points["other seed"].trunk}
    assert not (tmp_path / "trunks" / trunk_key(runs[0])).exists()  # nobody needs it any more


@pytest.mark.ci
def test_several_ranks_leave_and_take_up_a_trunk(corpus, tmp_path, alone):
    short, long = branch(corpus, STEPS[0]), branch(corpus, STEPS[-1])
    where = {"n_devices": 2, "measure_noise_scale": True}
    ends = []
    for run, other in ((long, short), (short, long)):
        directory = tmp_path / str(run.n_steps)
        directory.mkdir()
        trunk = trunk_of(run, tmp_path / "trunk", other)
        ends.append(train(run, placement(corpus, trunk=trunk, **where), Session(directory)))
    assert [end.n_tokens_shared for end in ends] == [0, 256 * short.branch_step]
    assert [end.loss for end in ends] == pytest.approx(
        [alone[n][0].loss for n in (STEPS[-1], STEPS[0])], rel=1e-4
    )
    measured = train(short, placement(corpus, measure_noise_scale=True), Session(tmp_path))
    assert ends[1].b_simple_tokens == pytest.approx(measured.b_simple_tokens, rel=0.01)
