"""Composes an experiment from YAML groups and overrides; beside the command line, only this knows Hydra."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yaml import YAMLError

from sweep.config import ExperimentConfig, known_keys, read_experiment, to_dict, unknown_key
from sweep.config.limits import (
    MAX_ARM_CHARS,
    check_arms,
    check_files,
    check_overrides,
    check_references,
    check_texts,
)
from sweep.credentials import refuse_credentials
from sweep.errors import InputError

ROOT = "sweep_root"  # the name our config.yaml has in Hydra's store
QUOTED_KEYS = (
    "results_dir",
    "data_dir",
    "store.index_url",
    "data.dataset",
    "data.delimiter",
    "tokenizer.path",
    "tokenizer.separator",
    "launch.partition",
    "launch.gres",
    "launch.constraint",
    "launch.address",
)
"""Keys of paths and texts: quoted for Hydra's grammar, so that commas, spaces and `=` mean themselves."""


def compose_experiment(overrides: Sequence[str] = (), config_dir: Path | None = None) -> ExperimentConfig:
    """The experiment that the packaged configs, the user's own and `overrides` make together.

    Searched in order: `config_dir`, ./configs, the packaged ones. Raises InputError in one sentence.
    """
    return compose_experiments(overrides, config_dir)[0]


def compose_experiments(
    overrides: Sequence[str] = (), config_dir: Path | None = None
) -> tuple[ExperimentConfig, ...]:
    """The same, one experiment for each arm: the product of the values that `arms` gives to keys or groups.

    Raises InputError in one sentence, also when arms would land in different sweeps.
    """
    values = compose(overrides, config_dir)
    axes = _axes(values.pop("arms"))
    if not axes:
        return (_read({**values, "arm": None}),)
    check_arms(axes)
    experiments = []
    for choice in itertools.product(*axes.values()):
        settings = [f"{key}={_literal(value)}" for key, value in zip(axes, choice, strict=True)]
        arm = compose([*overrides, *settings], config_dir)
        del arm["arms"]
        experiments.append(_read({**arm, "arm": ",".join(settings)}))
    if len({(experiment.name, experiment.results_dir) for experiment in experiments}) > 1:
        raise InputError("arms: name and results_dir are the same for all arms of a sweep, choose other keys")
    return tuple(experiments)


def _read(values: dict[str, Any]) -> ExperimentConfig:
    """The experiment, checked for what a valid value must not hold either."""
    experiment = read_experiment(values)
    check_texts(values)
    refuse_credentials(values)
    if len(experiment.arm or "") > MAX_ARM_CHARS:
        raise InputError(f"the arm {experiment.arm} has a name of more than {MAX_ARM_CHARS} characters")
    return experiment


def _axes(arms: Any) -> dict[str, list[Any]]:
    """The axes of `arms`, checked."""
    if arms is None:
        return {}
    if not isinstance(arms, Mapping):
        raise InputError(
            f"arms={arms!r} is not valid: give keys with lists, as {{optimizer.lr: [0.01, 0.02]}}"
        )
    for key, values in arms.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"arms.{key}={values!r} is not valid: give a list of at least one value")
        if len({str(value) for value in values}) < len(values):
            raise InputError(f"arms.{key}={values!r} holds a value twice: give each once")
    return dict(arms)


def _literal(value: Any) -> str:
    """A value in Hydra's grammar, and in an arm's name."""
    if isinstance(value, list):
        return f"[{','.join(_literal(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w.+-]+", value) else _quote(value)
    return repr(value)


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> dict[str, Any]:
    """The same as a plain dict, before validation."""
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    check_overrides(overrides)
    first, *rest = search_path(config_dir)
    check_files(path for path in (first, *rest) if path != packaged_configs())
    later = ",".join(_quote(f"file://{path}") for path in rest)
    # The root is always our own: somebody's ./configs may hold another program's config.yaml.
    ConfigStore.instance().store(ROOT, OmegaConf.load(packaged_configs() / "config.yaml"))
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(config_dir=str(first), version_base="1.3"):
            arguments = [*(quoted(override) for override in overrides), f"hydra.searchpath=[{later}]"]
            config = hydra.compose(ROOT, overrides=arguments)
        if "experiment" in config:  # only a file that lacks the header puts its keys there
            raise InputError(
                "the experiment's file does not begin with the line `# @package _global_`: add it"
            )
        check_references(_plain(OmegaConf.to_container(config)))
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(one_sentence(error)) from None
    except YAMLError as error:
        raise InputError(_yaml_sentence(error)) from None
    except RecursionError:
        raise InputError("config: a file's defaults list leads back to the file itself") from None
    return _plain(values)


def _plain(values: Any) -> dict[str, Any]:
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def override_experiment(
    base: ExperimentConfig, overrides: Sequence[str], config_dir: Path | None = None
) -> ExperimentConfig:
    """`base` with the keys that `overrides` name. Raises InputError for a whole group."""
    values = to_dict(base)
    composed = compose(overrides, config_dir) if overrides else {}
    for override in overrides:
        *parents, last = override.partition("=")[0].lstrip("+~").split(".")
        source, target = composed, values
        for parent in parents:
            source, target = source.get(parent, {}), target.get(parent, {})
        if not isinstance(target.get(last), Mapping) and last in target:
            target[last] = source[last]
            continue
        raise InputError(f"{override} is not a single key: on top of a sweep's own config give key=value")
    return _read(values)


def search_path(config_dir: Path | None) -> list[Path]:
    """Directories with configs, most specific first, each once. Raises InputError if `config_dir` is none."""
    if config_dir is not None and not config_dir.is_dir():
        raise InputError(f"--config-dir {config_dir} is not a directory")
    candidates = [config_dir, Path("configs"), packaged_configs()]
    found = [path.resolve() for path in candidates if path is not None and path.is_dir()]
    return list(dict.fromkeys(found))


def packaged_configs() -> Path:
    """The configs that come with sweep: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def quoted(override: str) -> str:
    """An override in Hydra's grammar, the value of a path key quoted unless it is already.

    >>> quoted("results_dir=my runs,1")
    "results_dir='my runs,1'"
    >>> quoted("budgets=[1e9]")
    'budgets=[1e9]'
    """
    key, equals, value = override.partition("=")
    if key not in QUOTED_KEYS or not equals or value in ("", "null") or value[0] in "'\"":
        return override
    return f"{key}={_quote(value)}"


def _yaml_sentence(error: YAMLError) -> str:
    """Where a YAML file is wrong, and how."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
    place = f"{mark.name}, line {mark.line + 1}" if mark else "config"
    return " ".join(f"{place} is not valid YAML: {problem}".split())


def _quote(value: str) -> str:
    """In single quotes; only backslashes before a quote or the end need doubling (Hydra's grammar)."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", r"\'")
    return f"'{escaped}'"


def one_sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's errors as one sentence with the key and the choices."""
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        key, group = match.group(1), match.group(1).partition(".")[0]
        if key in known_keys():
            return f"{key} is no key of the {group} that was chosen: choose another with {group}=NAME"
        return unknown_key(key, known_keys())
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, name = match.group(1).rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        choices = f": choose from {', '.join(options)}" if options else ""
        return f"{group}={name} is not there{choices}"
    if match := re.search(r"Could not load '([^']+)'", text):
        return f"{match.group(1)} is not there, or is not valid YAML"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        match = re.search(r"full_key: (\S+)", text) or match
        return f"{match.group(1)} is missing: give it a value"
    if match := re.search(r"Key '([^']+)' is not in struct", text):
        return unknown_key(match.group(1), [*known_keys(), "arms"])
    if "no viable alternative" in text or "LexerNoViableAlt" in text or "mismatched input" in text:
        return f"{_overridden(text)} is no key=value of Hydra's grammar: quote what is special in it"
    first = " ".join(line.strip() for line in text.splitlines()[:2] if line.strip())
    return f"config: {first}"


def _overridden(text: str) -> str:
    """The override a parser complains of, as far as it says."""
    match = re.search(r"at input '([^']*)'", text) or re.search(r": (\S+=\S*)", text)
    return match.group(1) if match else "an override"
