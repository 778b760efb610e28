"""The commands, options, keys and code blocks of the documentation exist and parse, on every page."""

import ast
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from sweep.cli.app import app
from sweep.config.reading import key_fields

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if path.name not in ("log.md", "CHANGELOG.md")  # they name commands and keys of earlier versions
)
VERBS = typer.main.get_command(app)
GROUPS = {
    "experiment",
    "model",
    "data",
    "tokenizer",
    "optimizer",
    "schedule",
    "launch",
    "fit",
    "tracking",
    "arms",
}
KEYS = {key for key, _cls, _field in key_fields()} | GROUPS
READERS = {"python": ast.parse, "yaml": yaml.safe_load, "json": json.loads}


def commands(text: str) -> list[str]:
    """Return the `sweep` commands of the code blocks, continued lines joined, without synopses (a|b, …)."""
    code = [block for _, block in re.findall(r"^```(?:sh|bash|console)?(\n)(.*?)^```$", text, re.M | re.S)]
    code += re.findall(r"(?:^    .*\n)+", text, re.M)
    lines = re.sub(r" *\\\n *", " ", "\n".join(code)).splitlines()
    found = (re.match(r"^(?:    )?(?:\$ )?(sweep [a-z].*)$", line) for line in lines)
    return [match[1] for match in found if match and not re.search(r"…|\w\|\w", match[1])]


def problems(command: str) -> list[str]:
    """Return the verbs, options and keys of a command that do not exist."""
    try:
        words = shlex.split(command, comments=True)[1:]
    except ValueError as error:
        return [f"{command}: {error}"]
    words = list(itertools.takewhile(lambda word: word not in ("|", ">", "&&", ";"), words))
    verb = VERBS
    while hasattr(verb, "commands"):
        if not words or words[0] not in verb.commands:
            return [f"{command}: unknown verb"]
        verb = verb.commands[words.pop(0)]
    options = {name for parameter in verb.params for name in parameter.opts} | {"--help"}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
    keys = [re.match(r"^[+~]?([a-z_][\w.]*)=", word) for word in words if not word.startswith("-")]
    values = {words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}
    unknown += [key[1] for key in keys if key and key.string not in values and not known(key[1])]
    return [f"{command}: unknown {name}" for name in unknown]


def known(key: str) -> bool:
    """Tell keys, groups and keys below a mapping from others."""
    return key in KEYS or any(key.startswith(f"{name}.") and name in KEYS - GROUPS for name in KEYS)


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_existing_verbs_options_and_keys(page):
    text = (ROOT / page).read_text()
    assert [problem for command in commands(text) for problem in problems(command)] == []


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_parse(page):
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S):
        if language in READERS:
            READERS[language](block)


@pytest.mark.parametrize(
    "command",
    ["sweep plna", "sweep plan --detahc", "sweep run optimizer.lrr=3", "sweep data prepar", "sweep fit 'x"],
)
def test_a_wrong_command_is_found(command):
    assert len(problems(command)) == 1


def test_commands_are_found_in_both_kinds_of_blocks():
    indented = "Run\n\n    sweep fit a.csv \\\n        --json > b\n\n"
    text = indented + "```sh\nsweep plan  # nothing\n$ sweep status x | less\n```\n"
    assert sorted(commands(text)) == [
        "sweep fit a.csv --json > b",
        "sweep plan  # nothing",
        "sweep status x | less",
    ]
    assert [problem for command in commands(text) for problem in problems(command)] == []
