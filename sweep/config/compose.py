"""Composes an experiment from YAML files and overrides, with Hydra."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml import YAMLError

from sweep.config import ExperimentConfig, known_keys, read_experiment, to_dict, unknown_key
from sweep.config.effects import without_effect_in_any
from sweep.config.limits import (
    MAX_ARM_CHARS,
    check_arms,
    check_files,
    check_overrides,
    check_references,
    check_texts,
)
from sweep.config.quoting import quoted
from sweep.config.reading import in_quotes, literal, with_defaults
from sweep.credentials import refuse_credentials
from sweep.errors import InputError

LOG = logging.getLogger(__name__)
ROOT = "sweep_root"  # the name of our config.yaml in Hydra's store
DEFAULT_EXPERIMENT = "demo"


def compose_experiment(overrides: Sequence[str] = (), config_dir: Path | None = None) -> ExperimentConfig:
    """Compose the packaged configs, the user's configs and `overrides` into an experiment.

    Config files are searched in `config_dir`, ./configs and the packaged configs, in this order.

    Raises:
        InputError: In one sentence, also for an override without effect. A key without effect in the
            experiment's file is logged as a warning.
    """
    return compose_experiments(overrides, config_dir)[0]


def compose_experiments(
    overrides: Sequence[str] = (), config_dir: Path | None = None
) -> tuple[ExperimentConfig, ...]:
    """Compose one experiment for each arm: the product of the values that `arms` gives to keys or groups.

    Raises:
        InputError: As `compose_experiment`, or the arms would be stored in different sweeps.
    """
    values = compose(overrides, config_dir)
    axes = _axes(values.pop("arms", None))
    experiments = []
    if axes:
        check_arms(axes)
        for choice in itertools.product(*axes.values()):
            settings = [f"{key}={literal(value)}" for key, value in zip(axes, choice, strict=True)]
            arm = compose([*overrides, *settings], config_dir)
            del arm["arms"]
            experiments.append(_read({**arm, "arm": ",".join(settings)}))
    else:
        experiments.append(_read({**values, "arm": None}))
    if len({(experiment.name, experiment.results_dir) for experiment in experiments}) > 1:
        raise InputError("arms: name and results_dir are the same for all arms of a sweep, choose other keys")
    _check_effects(experiments, [*_given_keys(overrides), *axes], overrides, config_dir)
    return tuple(experiments)


def override_experiment(
    base: ExperimentConfig, overrides: Sequence[str], config_dir: Path | None = None
) -> ExperimentConfig:
    """Return `base` with the keys that `overrides` set.

    Raises:
        InputError: As `compose_experiment`, or an override is not a single key.
    """
    values = to_dict(base)
    composed = compose(overrides, config_dir) if overrides else {}
    for override in overrides:
        *parents, last = override.partition("=")[0].lstrip("+~").split(".")
        source, target = composed, values
        for parent in parents:
            source, target = source.get(parent, {}), target.get(parent, {})
        if last not in target or isinstance(target[last], Mapping):
            raise InputError(f"{override} is not a single key: give key=value for the config of a sweep")
        target[last] = source[last]
    experiment = _read(values)
    _refuse_without_effect([experiment], _given_keys(overrides))
    return experiment


def _read(values: dict[str, Any]) -> ExperimentConfig:
    """Validate an experiment, and refuse control characters and credentials in it."""
    experiment = read_experiment(values)
    check_texts(values)
    refuse_credentials(values)
    if len(experiment.arm or "") > MAX_ARM_CHARS:
        raise InputError(
            f"the arm {experiment.arm} has a name of more than {MAX_ARM_CHARS} characters, made of the "
            f"values in arms: give shorter ones or fewer keys"
        )
    return experiment


def _axes(arms: Any) -> dict[str, list[Any]]:
    """Return the axes of `arms`, checked."""
    if arms is None:
        return {}
    if not isinstance(arms, Mapping):
        raise InputError(
            f"arms={arms!r} is not valid: give keys with lists, as {{optimizer.lr: [0.01, 0.02]}}"
        )
    for key, values in arms.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"arms.{key}={values!r} is not valid: give a list of at least one value")
        if len({literal(value) for value in values}) < len(values):
            raise InputError(f"arms.{key}={values!r} holds a value twice: give each once")
    return dict(arms)


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> dict[str, Any]:
    """Compose a plain dict with the default of every key, before validation.

    Raises:
        InputError: In one sentence.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    check_overrides(overrides)
    directories = search_path(config_dir)
    _check_experiment(overrides, directories)
    check_files(
        (path for path in directories if path != packaged_configs()),
        named_in="\n".join([(packaged_configs() / "config.yaml").read_text("utf-8"), *overrides]),
    )
    arguments = [_hydra_override(override, directories) for override in overrides]
    # The root is always our own: ./configs may hold the config.yaml of another program.
    ConfigStore.instance().store(ROOT, OmegaConf.load(packaged_configs() / "config.yaml"))
    GlobalHydra.instance().clear()
    try:
        with _without_marks(directories) as (first, *rest):
            later = ",".join(in_quotes(f"file://{path}") for path in rest)
            with hydra.initialize_config_dir(config_dir=str(first), version_base="1.3"):
                config = hydra.compose(ROOT, overrides=[*arguments, f"hydra.searchpath=[{later}]"])
        if "experiment" in config:  # only a file without the header puts its keys there
            raise InputError(
                "a file that the experiment is based on does not begin with `# @package _global_`: add it"
            )
        values = with_defaults(_plain(OmegaConf.to_container(config)))
        _check_groups(values)
        check_references(values)
        return _plain(OmegaConf.to_container(OmegaConf.create(values), resolve=True, throw_on_missing=True))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(one_sentence(error, overrides)) from None
    except YAMLError as error:
        raise InputError(_yaml_sentence(error)) from None
    except RecursionError:
        raise InputError("config: a file's defaults list leads back to the file itself") from None


def _check_groups(values: Mapping[str, Any]) -> None:
    """Raise InputError where a file gives a section the name of a file, which the defaults list chooses."""
    for section, value in values.items():
        if isinstance(value, str) and (packaged_configs() / section).is_dir():
            raise InputError(
                f"{section}={value!r} in a file is not a section of keys: to choose a file of "
                f"configs/{section}, write `- override /{section}: {value}` in the file's defaults list"
            )


def _is_yaml(path: Path) -> bool:
    """Return True for a file that can be parsed; composition reports the others, with the line."""
    try:
        yaml.safe_load(decoded(path.read_bytes()))
    except YAMLError:
        return False
    return True


def _check_experiment(overrides: Sequence[str], directories: Sequence[Path]) -> None:
    """Raise InputError for a path as experiment, and for a file of experiments without its first line."""
    value = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("experiment=")), "")
    name = value.strip("'\"")
    if name.endswith((".yaml", ".yml")) or "/" in name:
        raise InputError(
            f"experiment={value} is a path: give the name alone, experiment={Path(name).stem}, for a file in "
            f"configs/experiment of the working directory or of --config-dir DIR"
        )
    path = next((p for d in directories if (p := d / "experiment" / f"{name}.yaml").is_file()), None)
    if path is not None and not _HEADER.search(decoded(path.read_bytes())) and _is_yaml(path):
        raise InputError(f"{path} does not begin with the line `# @package _global_`: add it")


_HEADER = re.compile(r"\A(?:\s*#[^\n]*\n)*?\s*#\s*@package\s+_global_\s*?(?:\n|\Z)")


def decoded(data: bytes) -> str:
    """Return the text of a YAML file in UTF-8 or, with a byte order mark, UTF-16; line ends as \\n."""
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if data.startswith(mark):
            return data.decode("utf-16", "replace").replace("\r\n", "\n")
    return data.decode("utf-8-sig", "replace").replace("\r\n", "\n")


@contextlib.contextmanager
def _without_marks(directories: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the directories for Hydra, which reads UTF-8 without a byte order mark only.

    A directory with a file of another form is copied, with its YAML files in that form.
    """
    marks = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    with contextlib.ExitStack() as stack:
        readable = []
        for directory in directories:
            files = [] if directory == packaged_configs() else sorted(directory.rglob("*.yaml"))
            texts = {path: path.read_bytes() for path in files if path.is_file()}
            if any(data.startswith(marks) for data in texts.values()):
                copied = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                for path, data in texts.items():
                    target = copied / path.relative_to(directory)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(decoded(data), encoding="utf-8")
                directory = copied
            readable.append(directory)
        yield readable


def _plain(values: Any) -> dict[str, Any]:
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def search_path(config_dir: Path | None) -> list[Path]:
    """Return the config directories, most specific first.

    Raises:
        InputError: `config_dir` is not a directory.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise InputError(
            f"--config-dir {config_dir} is not a directory: give one with configs, as in configs/"
        )
    candidates = [config_dir, Path("configs"), packaged_configs()]
    found = [path.resolve() for path in candidates if path is not None and path.is_dir()]
    return list(dict.fromkeys(found))


def experiment_names(config_dir: Path | None = None) -> list[str]:
    """Return the names of all experiments in the config directories."""
    found = {
        path.stem for path in itertools.chain(*(d.glob("experiment/*.yaml") for d in search_path(config_dir)))
    }
    return sorted(found)


def packaged_configs() -> Path:
    """Return the packaged config directory: inside the package in a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _hydra_override(override: str, directories: Sequence[Path]) -> str:
    """Return an override for Hydra, which lets a key be set that no file names only after `++`.

    Raises:
        InputError: The key is unknown.
    """
    key, equals, _ = override.partition("=")
    name = key.lstrip("+")
    if not equals or key.startswith("~"):
        return override
    if not name:
        raise InputError(f"{override!r} is not a valid override: write key=value")
    if name in _settable() or any(name.startswith(f"{leaf}.") for leaf in known_keys()):
        return f"++{quoted(override.lstrip('+'))}"
    if any((path / name).is_dir() for path in directories):
        return override
    raise InputError(unknown_key(name, [*known_keys(), "arms"]))


def _settable() -> set[str]:
    """Return all keys, `arms`, and the sections that are not groups of files."""
    sections = {key.partition(".")[0] for key in known_keys() if "." in key}
    return {*known_keys(), *(sections - {path.name for path in packaged_configs().iterdir()}), "arms"}


def _check_effects(
    experiments: Sequence[ExperimentConfig],
    given: Sequence[str],
    overrides: Sequence[str],
    config_dir: Path | None,
) -> None:
    """Refuse an override without effect; warn of a key without effect in the experiment's file."""
    _refuse_without_effect(experiments, given)
    name = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("experiment=")), "")
    stored = _file_keys(name or DEFAULT_EXPERIMENT, search_path(config_dir))
    for sentence in without_effect_in_any(experiments, [key for key in stored if key not in given]).values():
        LOG.warning("experiment=%s: %s", name or DEFAULT_EXPERIMENT, sentence)


def _refuse_without_effect(experiments: Sequence[ExperimentConfig], given: Sequence[str]) -> None:
    for sentence in without_effect_in_any(experiments, given).values():
        raise InputError(f"{sentence}; leave it out or change the other key")


def _given_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys that overrides set, those inside of a section given as {key: value} with dots."""
    keys: list[str] = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        keys += [key] if not value.startswith("{") else _flat(_parsed(override), f"{key}.")
    return keys


def _parsed(override: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(override).value()


def _file_keys(name: str, directories: Sequence[Path], seen: frozenset[str] = frozenset()) -> list[str]:
    """Return the keys that an experiment's file sets, and those of the experiments in its defaults list."""
    paths = (directory / "experiment" / f"{name}.yaml" for directory in directories)
    path = next((path for path in paths if path.is_file()), None)
    values = yaml.safe_load(path.read_bytes()) if path is not None and name not in seen else None
    if not isinstance(values, Mapping):
        return []
    bases = [entry for entry in values.get("defaults") or () if isinstance(entry, str)]
    inherited = [_file_keys(base, directories, seen | {name}) for base in bases]
    return [*_flat({k: v for k, v in values.items() if k != "defaults"}), *itertools.chain(*inherited)]


def _flat(values: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _yaml_sentence(error: YAMLError) -> str:
    """Return the place and the reason of a YAML error."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
    place = f"{mark.name}, line {mark.line + 1}" if mark else "config"
    return " ".join(f"{place} is not valid YAML: {problem}".split())


def one_sentence(error: Exception, overrides: Sequence[str] = ()) -> str:
    """Return an error of Hydra or OmegaConf as one sentence with the key and the choices.

    `overrides` are those that were composed, as typed.
    """
    text = str(error)
    if match := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        return f"{match.group(1)} not found in the experiment's files: remove this override"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, name = match.group(1).rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        choices = f": choose from {', '.join(options)}" if options else ""
        places = "; files of your own are read from configs/ in the working directory"
        return f"{group}={name} not found{choices}{places}"
    if match := re.search(r"Could not load '([^']+)'", text):
        return f"{match.group(1)} not found, or not valid YAML"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        match = re.search(r"full_key: (\S+)", text) or match
        return f"{match.group(1)} is missing: give it a value"
    if "no viable alternative" in text or "LexerNoViableAlt" in text or "mismatched input" in text:
        shown = _overridden(text).lstrip("+")
        typed = next((one for one in overrides if one.lstrip("+").startswith(shown)), shown)
        return (
            f"{typed} is not valid in Hydra's grammar: put texts with special characters into quotes, or "
            f"write it into a file of configs/experiment"
        )
    if match := re.search(r"In '([^']+)': ConfigTypeError .*\n.*Cannot merge", text):
        return f"{match.group(1)}.yaml has a list where a section of keys belongs, or the reverse: correct it"
    first = " ".join(line.strip() for line in text.splitlines()[:2] if line.strip())
    cause = error.__cause__ or error.__context__
    if not first and isinstance(cause, Exception):
        return one_sentence(cause, overrides)
    return f"config: {first or repr(error)}"


def _overridden(text: str) -> str:
    """Return the override that a parser's error names."""
    match = re.search(r"at input '([^']*)'", text) or re.search(r": (\S+=\S*)", text)
    return match.group(1) if match else "an override"
