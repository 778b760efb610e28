"""The grid: exact budgets, reasons for dropped cells, warnings, and stable run keys."""

from dataclasses import replace

import pytest

from sweep import flops
from sweep.errors import InputError
from sweep.identity import run_key
from sweep.plan.devices import planned_device
from sweep.plan.estimate import COMPILE_S, compilation_pays, memory
from sweep.plan.grid import log_spaced, make_plan
from sweep.records import Dataset
from tests.configs import composed

DATASET = Dataset(
    corpus="test",
    corpus_sha256="0" * 64,
    tokenizer="byte",
    tokenizer_sha256="1" * 64,
    vocab_size=256,
    n_train_tokens=10_000_000,
)


def plan(*overrides, dataset=DATASET):
    return make_plan(composed("experiment=demo_bytes", *overrides), dataset)


def test_every_run_spends_its_budget_exactly_counted():
    for run in plan().runs:
        config = run.config
        assert run.flops == flops.count(config.model, config.n_tokens).flops
        assert run.flops <= config.flops_budget
        assert run.budget_error == run.flops / config.flops_budget - 1
        assert abs(run.budget_error) <= 0.02
        one_more = flops.count(config.model, config.n_tokens + config.batch_tokens).flops
        assert one_more > config.flops_budget
        assert run.run_key == run_key(config)


def test_seeds_multiply_and_keys_are_distinct():
    one, three = plan(), plan("seeds=[0,1,2]")
    assert len(three.runs) == 3 * len(one.runs)
    assert len({run.run_key for run in three.runs}) == len(three.runs)
    assert {run.run_key for run in one.runs} < {run.run_key for run in three.runs}


def test_adding_a_budget_only_adds_runs():
    before = {run.run_key for run in plan("grid.d_model=[16,24,32,40]").runs}
    after = {
        run.run_key for run in plan("grid.d_model=[16,24,32,40]", "budgets=[4e10,1e11,2.5e11,6e11,1e12]").runs
    }
    assert before < after


def test_sizes_from_a_prior_surround_it():
    planned = plan("grid.d_model=null", "grid.tokens_per_param=14", "grid.span=16", "grid.n_sizes=5")
    for budget in planned.experiment.budgets:
        ratios = [r.config.n_tokens / r.n_params for r in planned.runs if r.config.flops_budget == budget]
        assert len(ratios) == 5
        for ratio, wanted in zip(sorted(ratios), log_spaced(14, 16, 5), strict=True):
            assert ratio == pytest.approx(wanted, rel=0.35)  # widths come in steps of 4


def test_target_sizes_are_met_as_nearly_as_widths_allow():
    planned = plan("grid.d_model=null", "grid.n_params=[2e4,5e4,1e5,2e5]", "budgets=[1e12]")
    for run, target in zip(planned.runs, (2e4, 5e4, 1e5, 2e5), strict=True):
        d_model = run.config.model.d_model
        neighbours = [
            flops.n_params(replace(run.config.model, d_model=d, d_ff=4 * d)).total
            for d in (d_model - 4, d_model + 4)
        ]
        assert all(abs(run.n_params / target - 1) <= abs(n / target - 1) + 0.1 for n in neighbours)


def test_dropped_cells_say_why():
    tight = plan("grid.min_steps=1500")
    assert tight.dropped
    assert all("steps" in cell.reason and "grid.min_steps=1500" in cell.reason for cell in tight.dropped)
    few_tokens = plan("grid.max_epochs=0.05")
    assert any("epochs over the corpus" in cell.reason for cell in few_tokens.dropped)
    coarse = plan("batch_tokens=65536", "grid.min_steps=1", "schedule.warmup_frac=0")
    assert any("miss the budget by" in cell.reason for cell in coarse.dropped)
    twice = plan("grid.d_model=[16,16,24,32,40]")
    reason = "the 5 sizes asked for round to d_model 16, 24, 32, 40: give each width once in grid.d_model"
    assert [cell.reason for cell in twice.dropped] == [reason] * 4


def test_a_warmup_longer_than_a_run_is_refused_with_the_most_there_can_be():
    warmup = ("schedule.warmup_frac=null", "schedule.warmup_tokens=")
    with pytest.raises(
        InputError, match=r"schedule.warmup_tokens=200000 is a warmup of \d+ steps"
    ) as refusal:
        plan(warmup[0], f"{warmup[1]}2e5")
    most = float(str(refusal.value).rpartition("at most ")[2])
    assert plan(warmup[0], f"{warmup[1]}{most}", "budgets=[4e10]", "grid.d_model=[8,12,16,24]").runs


def test_nothing_left_is_refused():
    with pytest.raises(InputError, match="no cell of the grid can be trained"):
        plan("grid.min_steps=1000000")


def test_a_giant_grid_is_refused_at_once():
    with pytest.raises(InputError, match="cells: at most 100,000 make one plan"):
        plan("grid.d_model=null", "grid.n_sizes=1000000000")


def test_warnings():
    assert plan().warnings == ()
    repeated = plan(dataset=replace(DATASET, n_train_tokens=1_000_000)).warnings
    assert any("read the corpus more than once" in warning for warning in repeated)
    assert plan(dataset=replace(DATASET, n_train_tokens=None)).runs[0].corpus_share is None
    one_sided = plan("grid.d_model=[48,56,64,72]", "budgets=[4e10]").warnings
    assert any("every size has a D/N below the expected optimum of 14" in warning for warning in one_sided)
    three = plan("grid.d_model=[16,24,32]").warnings
    assert any("3 sizes cannot bracket a minimum" in warning for warning in three)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="d_model=17 does not divide into n_heads=2"):
        plan("grid.d_model=[17]")
    with pytest.raises(
        InputError, match=r"d_model=17 does not divide into heads of model.head_dim=8: .*16 or 24"
    ):
        plan("grid.d_model=[17]", "model.n_heads=null", "model.head_dim=8")


def test_depth_from_the_aspect_ratio():
    planned = plan(
        "model=gpt",
        "grid.d_model=[128,256,512,1024]",
        "budgets=[1e18]",
        "batch_tokens=8192",
        "grid.max_epochs=1e9",
    )
    assert [run.config.model.n_layers for run in planned.runs] == [2, 4, 8, 16]
    assert {run.config.model.head_dim for run in planned.runs} == {64}


def test_precision_and_estimates_are_those_of_the_device():
    """A CPU's plan is what it was before precision could be auto."""
    experiment = composed("experiment=demo_bytes", "precision=auto", "estimate.flops_per_second=1e8")
    cpu, gpu = make_plan(experiment, DATASET), make_plan(experiment, DATASET, "cuda")
    assert (cpu.experiment.precision, gpu.experiment.precision) == ("fp32", "bf16")
    assert {run.config.precision for run in gpu.runs} == {"bf16"}
    asked = make_plan(replace(experiment, precision="fp32"), DATASET, "cuda")
    assert [run.run_key for run in asked.runs] == [run.run_key for run in cpu.runs]
    for on_cpu, on_gpu in zip(cpu.runs, asked.runs, strict=True):
        assert on_gpu.memory_bytes == memory(on_gpu.config, None, device="cuda").total != on_cpu.memory_bytes
        assert on_gpu.time_s == pytest.approx(on_cpu.time_s + COMPILE_S * compilation_pays(on_cpu.time_s))
    assert any(compilation_pays(run.time_s) for run in cpu.runs)


@pytest.mark.parametrize(
    ("overrides", "has_gpu", "device"),
    [
        ([], True, "cuda"),
        ([], False, "cpu"),
        (["trainer.device=cpu"], True, "cpu"),
        (["trainer.device=cuda"], False, "cuda"),
        (["launch=slurm"], True, "cpu"),
        (["launch=slurm", "launch.gres=gpu:1"], False, "cuda"),
        (["launch=ray", "launch.gpus_per_worker=0.5"], False, "cuda"),
    ],
)
def test_the_device_of_a_plan(overrides, has_gpu, device):
    has_gpu = has_gpu and "launch=slurm" not in overrides
    assert planned_device(composed("experiment=demo_bytes", *overrides), has_gpu=has_gpu) == device


@pytest.mark.parametrize(
    ("n_held_out", "message"), [(1, "only 1 document is"), (29, "only 29 documents are")]
)
def test_few_held_out_documents_give_a_warning(n_held_out, message):
    (warning,) = plan(dataset=replace(DATASET, n_documents_held_out=n_held_out)).warnings
    assert warning.startswith(f"{message} held out")
    assert "data.delimiter" in warning
    assert "data.holdout_frac" in warning


@pytest.mark.parametrize("n_held_out", [None, 30])
def test_enough_or_unknown_held_out_documents_give_no_warning(n_held_out):
    assert plan(dataset=replace(DATASET, n_documents_held_out=n_held_out)).warnings == ()
