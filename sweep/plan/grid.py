"""The grid: runs from budgets and sizes, with dropped cells and warnings.

Legend: N total parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sweep import flops
from sweep.config import EvaluationConfig, EvaluationSet, ExperimentConfig, ModelConfig, RunConfig
from sweep.errors import InputError
from sweep.identity import run_key
from sweep.plan import estimate, rules
from sweep.plan.devices import DeviceType, with_precision
from sweep.plan.parametrization import parametrized
from sweep.plan.shapes import nearest_shape, shape_of_width, width_step
from sweep.plan.trunks import GridCell, branch_cell, run_schedule, share_trunks
from sweep.records import Dataset, DroppedCell, Plan, PlannedRun

MAX_CELLS = 100_000  # budgets x sizes x seeds of one plan
MIN_HELD_OUT = 30  # documents; the error of a standard error from fewer exceeds 13 %
MIN_SIZES = 4  # a parabola has three coefficients; one more point tests its fit


def make_plan(experiment: ExperimentConfig, dataset: Dataset, device: DeviceType = "cpu") -> Plan:
    """Expand an experiment into its runs, budgets in the given order, sizes ascending.

    The estimates, and the precision if it is auto, are those of workers on `device`.

    Raises:
        InputError: No cell can be trained, the grid has more than MAX_CELLS, or a rule is unknown.
    """
    experiment = with_precision(experiment, device)
    rules.check_rules(experiment)
    _refuse_huge(experiment)
    runs: list[PlannedRun] = []
    dropped: list[DroppedCell] = []
    warnings: list[str] = []
    shapes = grid_shapes(experiment, dataset, dropped)
    for budget, models in zip(experiment.budgets, shapes, strict=True):
        kept = []
        for model in models:
            outcome = plan_cell(experiment, dataset, cell_of(experiment, shapes, model, budget), device)
            if isinstance(outcome, DroppedCell):
                dropped.append(outcome)
            else:
                kept.append(outcome)
        warnings += _bracket_warnings(experiment, budget, [cell[0] for cell in kept])
        runs += [run for cell in kept for run in cell]
    if not runs:
        reasons = "; ".join(f"{cell.name}: {cell.reason}" for cell in dropped[:3])
        raise InputError(f"no cell of the grid can be trained ({reasons}): change budgets or grid.*")
    return Plan(
        experiment=experiment,
        runs=share_trunks(runs, experiment.estimate),
        dropped=tuple(dropped),
        warnings=(*_epoch_warnings(runs), *heldout_warnings(dataset.n_documents_held_out), *warnings),
    )


def _refuse_huge(experiment: ExperimentConfig) -> None:
    grid = experiment.grid
    sizes = grid.d_model or grid.n_params
    per_budget = grid.n_sizes if sizes is None else sum(_length(size) for size in sizes)
    n_cells = len(experiment.budgets) * per_budget * len(experiment.seeds)
    if n_cells > MAX_CELLS:
        raise InputError(f"the grid has about {n_cells:,} cells: at most {MAX_CELLS:,} make one plan")


def _length(size: object) -> int:
    return len(size) if isinstance(size, tuple) else 1


def grid_shapes(
    experiment: ExperimentConfig, dataset: Dataset, dropped: list[DroppedCell]
) -> list[list[ModelConfig]]:
    """Return the requested shapes of each budget, trainable or not; repeated ones are dropped."""
    return [_shapes(experiment, index, dataset, dropped) for index in range(len(experiment.budgets))]


def _shapes(
    experiment: ExperimentConfig, index: int, dataset: Dataset, dropped: list[DroppedCell]
) -> list[ModelConfig]:
    """Return the distinct shapes at budget `index`, ascending; a repeated shape is dropped once."""
    shapes: list[ModelConfig] = []
    for model in _requested_shapes(experiment, index, dataset.vocab_size):
        if model not in shapes:
            shapes.append(model)
    n_asked = sum(1 for _ in _requested_shapes(experiment, index, dataset.vocab_size))
    if n_asked > len(shapes):
        name = cell_name(experiment.budgets[index], shapes[0])
        dropped.append(DroppedCell(name=name, reason=_rounded(experiment, n_asked, shapes)))
    return sorted(shapes, key=lambda model: flops.n_params(model).total)


def _rounded(experiment: ExperimentConfig, n_asked: int, shapes: Sequence[ModelConfig]) -> str:
    """Return why a budget has fewer sizes than were asked for."""
    widths = ", ".join(str(width) for width in sorted({model.d_model for model in shapes}))
    reason = f"the {n_asked} sizes asked for round to d_model {widths}"
    if experiment.grid.d_model is not None:
        return f"{reason}: give each width once in grid.d_model"
    step = width_step(experiment.model)
    if width_step(replace(experiment.model, width_multiple=1)) == step:
        return f"{reason}, multiples of {step} for whole heads: lower grid.n_sizes or raise grid.span"
    return (
        f"{reason} (model.width_multiple={experiment.model.width_multiple}): lower model.width_multiple, or "
        f"give grid.d_model"
    )


def _requested_shapes(experiment: ExperimentConfig, index: int, vocab_size: int) -> Iterator[ModelConfig]:
    grid, architecture, budget = experiment.grid, experiment.model, experiment.budgets[index]
    if grid.d_model is not None:
        for d_model in _of_budget(grid.d_model, index):
            try:
                yield shape_of_width(int(d_model), architecture, vocab_size)
            except InputError as error:
                raise InputError(f"{error} in grid.d_model, or grid.d_model=null for sizes by D/N") from None
    elif grid.n_params is not None:
        for target in _of_budget(grid.n_params, index):
            yield nearest_shape(lambda m: flops.n_params(m).total, target, architecture, vocab_size)
    else:
        for ratio in log_spaced(grid.tokens_per_param, grid.span, grid.n_sizes):
            # D/N = C / (flops_per_token · N): the denominator grows with the width
            yield nearest_shape(
                lambda m: flops.flops_per_token(m) * flops.n_params(m).total,
                budget / ratio,
                architecture,
                vocab_size,
            )


def _of_budget(sizes: Sequence[float] | Sequence[Sequence[float]], index: int) -> Sequence[float]:
    """Return the sizes of budget `index`: its own list, or the one list for all."""
    return sizes[index] if isinstance(sizes[0], tuple) else sizes  # type: ignore[return-value]


def log_spaced(center: float, span: float, n: int) -> list[float]:
    """Return `n` values with equal ratios, geometric mean `center`, and the last `span` times the first.

    >>> log_spaced(20, 16, 3)
    [5.0, 20.0, 80.0]
    """
    if n == 1:
        return [float(center)]
    return [center * span ** (i / (n - 1) - 0.5) for i in range(n)]


def cell_name(budget: float, model: ModelConfig) -> str:
    """Return a label for a cell that is valid in a file name: budget, width and depth."""
    return f"{budget:.4g}-d{model.d_model}-L{model.n_layers}".replace("e+", "e")


def tokens_of_budget(experiment: ExperimentConfig, model: ModelConfig, budget: float) -> rules.Cell:
    """Return the tokens of a budget at one shape: D = floor(C / flops_per_token / batch) · batch."""
    affordable = budget / flops.flops_per_token(model)
    batch = rules.batch_tokens(
        experiment.batch_tokens,
        experiment.batch_multiplier,
        affordable,
        model,
        power_of_two=experiment.batch_power_of_two,
    )
    n_tokens = int(affordable // batch) * batch
    return rules.Cell(budget=budget, model=model, n_tokens=n_tokens, batch_tokens=batch)


def cell_of(
    experiment: ExperimentConfig, shapes: Sequence[Sequence[ModelConfig]], model: ModelConfig, budget: float
) -> GridCell:
    """Return one cell of the grid with sizes `shapes` at each budget.

    With cooldown branches, rules are applied to the geometric mean of the smallest and the largest budget of
    the size, so that the trunk's batch and learning rate are off by the same factor at both ends.
    """
    own = tokens_of_budget(experiment, model, budget)
    if not experiment.schedule.cooldown_branches:
        return GridCell(own=own, tuned=own, shortest=own)
    at = [at for at, models in zip(experiment.budgets, shapes, strict=True) if model in models]
    tuned = tokens_of_budget(experiment, model, math.sqrt(min(at) * max(at)))
    return GridCell(own=branch_cell(tuned, budget), tuned=tuned, shortest=branch_cell(tuned, min(at)))


def plan_cell(
    experiment: ExperimentConfig, dataset: Dataset, cell: GridCell, device: DeviceType
) -> list[PlannedRun] | DroppedCell:
    """Return the runs of one cell, one per seed, or the reason for dropping it; precision is not auto."""
    problem = _problem(experiment, dataset, cell)
    if problem is not None:
        return DroppedCell(name=cell_name(cell.own.budget, cell.own.model), reason=problem)
    return [_planned(experiment, dataset, cell, seed, device) for seed in experiment.seeds]


def _problem(experiment: ExperimentConfig, dataset: Dataset, planned: GridCell) -> str | None:
    grid, cell = experiment.grid, planned.own
    if cell.n_steps < grid.min_steps:
        steps = f"{cell.n_steps} steps of {cell.batch_tokens} tokens"
        return f"{steps} are fewer than grid.min_steps={grid.min_steps}"
    error = abs(flops.flops_per_token(cell.model) * cell.n_tokens / cell.budget - 1)
    if error > grid.max_budget_error:
        return f"whole batches miss the budget by {error:.1%}, more than {grid.max_budget_error:.1%}"
    share = _corpus_share(cell.n_tokens, dataset)
    if share is not None and share > grid.max_epochs:
        return f"{share:.3g} epochs over the corpus are more than {grid.max_epochs:g} (grid.max_epochs)"
    schedule = run_schedule(experiment.schedule, planned)
    warmup, decay = schedule.warmup_steps, schedule.decay_steps
    if warmup + decay > cell.n_steps or warmup == cell.n_steps:
        if isinstance(experiment.schedule.warmup_tokens, str):
            rule = experiment.schedule.warmup_tokens
            return f"schedule.warmup_tokens={rule} is a warmup of {warmup} of its {cell.n_steps} steps"
        raise InputError(_too_long(experiment, cell, warmup, decay))
    return None


def _too_long(experiment: ExperimentConfig, cell: rules.Cell, warmup: int, decay: int) -> str:
    """Return a sentence that refuses a warmup, or a warmup and a decay, longer than the run."""
    schedule, name = experiment.schedule, cell_name(cell.budget, cell.model)
    key = "warmup_frac" if schedule.warmup_tokens is None else "warmup_tokens"
    most = (cell.n_steps - max(decay, 1)) * (1 / cell.n_steps if key == "warmup_frac" else cell.batch_tokens)
    with_decay = f" and a decay of {decay}" if decay else ""
    return (
        f"schedule.{key}={getattr(schedule, key):g} is a warmup of {warmup} steps{with_decay}, and {name} "
        f"has {cell.n_steps}: choose at most {math.floor(most * 1e4) / 1e4:g}"
    )


def _planned(
    experiment: ExperimentConfig, dataset: Dataset, planned: GridCell, seed: int, device: DeviceType
) -> PlannedRun:
    run, cell = _run_config(experiment, dataset, planned, seed), planned.own
    exact = flops.count(cell.model, cell.n_tokens).flops
    seconds = estimate.time_s(run, experiment.estimate, device=device)
    return PlannedRun(
        run_key=run_key(run),
        config=run,
        flops=exact,
        n_params=flops.n_params(cell.model).total,
        budget_error=exact / cell.budget - 1,
        corpus_share=_corpus_share(cell.n_tokens, dataset),
        memory_bytes=estimate.memory_bytes(
            run,
            experiment.trainer.micro_batch_size,
            device=device,
            measures_noise=experiment.trainer.measure_noise_scale,
        ),
        time_s=seconds,
        cost=estimate.cost(seconds, experiment.estimate),
    )


def _run_config(experiment: ExperimentConfig, dataset: Dataset, planned: GridCell, seed: int) -> RunConfig:
    """Return a cell's run; rules are applied to `planned.tuned`, with cooldown branches the trunk."""
    cell = planned.own
    scaled = parametrized(experiment, cell.model)
    assert experiment.precision != "auto"
    return RunConfig(
        name="-".join(filter(None, (cell_name(cell.budget, cell.model), f"s{seed}", experiment.arm))),
        experiment=experiment.name,
        arm=experiment.arm,
        flops_budget=cell.budget,
        model=scaled.model,
        corpus=dataset.corpus,
        corpus_sha256=dataset.corpus_sha256,
        tokenizer=dataset.tokenizer,
        tokenizer_sha256=dataset.tokenizer_sha256,
        optimizer=rules.run_optimizer(experiment.optimizer, planned.tuned, scaled.width_ratio),
        schedule=run_schedule(experiment.schedule, planned),
        batch_tokens=cell.batch_tokens,
        n_tokens=cell.n_tokens,
        precision=experiment.precision,
        parametrization=experiment.parametrization,
        evaluation=EvaluationConfig(
            n_tokens=experiment.evaluation.n_tokens,
            selection=experiment.evaluation.selection,
            sets=tuple(
                EvaluationSet(name=name, corpus_sha256=sha256)
                for name, sha256 in sorted(dataset.sets.items())
            ),
        ),
        seed=seed,
    )


def _corpus_share(n_tokens: int, dataset: Dataset) -> float | None:
    return None if dataset.n_train_tokens is None else n_tokens / dataset.n_train_tokens


def _epoch_warnings(runs: Sequence[PlannedRun]) -> list[str]:
    if any(run.corpus_share is None for run in runs):
        return ["the share of the corpus is unknown until it is prepared, as sweep run does first"]
    repeated = [run for run in runs if run.corpus_share is not None and run.corpus_share > 1]
    if not repeated:
        return []
    worst = max(repeated, key=lambda run: run.corpus_share or 0)
    return [
        f"{len(repeated)} of {len(runs)} runs read the corpus more than once, {worst.config.name} "
        f"{worst.corpus_share:.2g} times: repeated tokens lower the loss less than new ones"
    ]


def heldout_warnings(n_held_out: int | None) -> list[str]:
    """Return a warning if few documents are held out, so that the level of the loss depends on which.

    None: their number is not known yet.
    """
    if n_held_out is None or n_held_out >= MIN_HELD_OUT:
        return []
    documents = "document is" if n_held_out == 1 else "documents are"
    return [
        f"only {n_held_out} {documents} held out: the loss and its floor E depend on which, and fewer than "
        f"{MIN_HELD_OUT} do not show by how much; add documents, split files with data.delimiter, or raise "
        f"data.holdout_frac"
    ]


def _bracket_warnings(experiment: ExperimentConfig, budget: float, cells: Sequence[PlannedRun]) -> list[str]:
    """Return a warning if the sizes at a budget are unlikely to enclose a minimum."""
    name = f"{budget:.4g} FLOPs".replace("e+", "e")
    if len(cells) < MIN_SIZES:
        sizes = f"{len(cells)} size{'s' * (len(cells) > 1)}"
        return [f"{name}: {sizes} cannot bracket a minimum, at least {MIN_SIZES} are needed"]
    ratios = [cell.config.n_tokens / cell.n_params for cell in cells]
    prior = experiment.grid.tokens_per_param
    side = "above" if min(ratios) > prior else "below" if max(ratios) < prior else None
    if side is None:
        return []
    return [
        f"{name}: every size has a D/N {side} the expected optimum of {prior:g} (grid.tokens_per_param): "
        f"the minimum may lie outside the sizes"
    ]
