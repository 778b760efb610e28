"""Conditions under which a key has an effect, so that a setting without one is reported by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from sweep.config.experiment import ExperimentConfig
from sweep.config.launch import RayLaunch
from sweep.config.reading import literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """Keys that only have an effect in some experiments."""

    keys: tuple[str, ...]
    needs: str  # what an experiment must have, completing "it needs ..."
    holds: Callable[[ExperimentConfig], bool]


CONDITIONS = (
    Condition(
        keys=("grid.n_sizes", "grid.span"),
        needs="grid.d_model=null and grid.n_params=null",
        holds=lambda e: e.grid.d_model is None and e.grid.n_params is None,
    ),
    Condition(
        keys=("model.width_multiple",),
        needs="grid.d_model=null",
        holds=lambda e: e.grid.d_model is None,
    ),
    Condition(
        keys=("model.rope_base",),
        needs="model.positions=rope",
        holds=lambda e: e.model.positions == "rope",
    ),
    Condition(
        keys=("model.qk_gain",),
        needs="model.qk_norm=true",
        holds=lambda e: e.model.qk_norm,
    ),
    Condition(
        keys=("model.embedding_scale",),
        needs="model.init_std=null",
        holds=lambda e: e.model.init_std is None,
    ),
    Condition(
        keys=("optimizer.lr_max",),
        needs="a rule as optimizer.lr",
        holds=lambda e: isinstance(e.optimizer.lr, str),
    ),
    Condition(
        keys=("optimizer.beta1", "optimizer.beta2", "optimizer.eps"),
        needs="optimizer=adamw or optimizer=muon",
        holds=lambda e: e.optimizer.name != "sgd",
    ),
    Condition(
        keys=("optimizer.momentum", "optimizer.nesterov"),
        needs="optimizer=muon or optimizer=sgd",
        holds=lambda e: e.optimizer.name != "adamw",
    ),
    Condition(
        keys=("optimizer.ns_steps", "optimizer.muon_scaling"),
        needs="optimizer=muon",
        holds=lambda e: e.optimizer.name == "muon",
    ),
    Condition(
        keys=("batch_power_of_two",),
        needs="a rule as batch_tokens",
        holds=lambda e: isinstance(e.batch_tokens, str),
    ),
    Condition(
        keys=("schedule.final_lr_frac",),
        needs="a schedule other than constant",
        holds=lambda e: e.schedule.name != "constant",
    ),
    Condition(
        keys=("schedule.decay_frac", "schedule.cooldown_branches"),
        needs="schedule=wsd",
        holds=lambda e: e.schedule.name == "wsd",
    ),
    Condition(
        keys=("adaptive.target", "adaptive.goal", "adaptive.flops_budget", "adaptive.max_budget"),
        needs="adaptive.enabled=true",
        holds=lambda e: e.adaptive.enabled,
    ),
    Condition(
        keys=("trainer.parallel",),
        needs="trainer.n_devices above 1",
        holds=lambda e: e.trainer.n_devices > 1,
    ),
    Condition(
        keys=("trainer.deterministic",),
        needs="trainer.device=cuda or trainer.device=auto",
        holds=lambda e: e.trainer.device != "cpu",
    ),
    Condition(
        keys=("launch.mps",),
        needs="trainer.device=cuda or trainer.device=auto",
        holds=lambda e: e.trainer.device != "cpu",
    ),
    Condition(
        keys=("launch.allow_insecure",),
        needs="launch.address",
        holds=lambda e: not isinstance(e.launch, RayLaunch) or e.launch.address is not None,
    ),
    Condition(
        keys=("tracking.project", "tracking.entity", "tracking.mode"),
        needs="tracking=wandb",
        holds=lambda e: e.tracking.name != "none",
    ),
)


def without_effect(experiment: ExperimentConfig, keys: Iterable[str]) -> dict[str, str]:
    """Return, for each of `keys` without an effect in `experiment`, a sentence that says so.

    null and false switch off what has no effect here anyway, so they are accepted.
    """
    condition_of = {key: condition for condition in CONDITIONS for key in condition.keys}
    found = {}
    for key in keys:
        condition = condition_of.get(key)
        if condition is None or condition.holds(experiment):
            continue
        value = attrgetter(key)(experiment)
        if value is not None and value is not False:
            found[key] = f"{key}={literal(value)} has no effect: it needs {condition.needs}"
    return found


def without_effect_in_any(experiments: Sequence[ExperimentConfig], keys: Iterable[str]) -> dict[str, str]:
    """Return the same for keys that have an effect in none of `experiments`, the arms of a sweep."""
    first, *others = (without_effect(experiment, keys) for experiment in experiments)
    return {key: text for key, text in first.items() if all(key in other for other in others)}
