"""What must never reach a file: recognises credentials in a text, and takes them out of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from sweep.errors import InputError

MIN_SECRET_CHARS = 8
"""A shorter value of a variable is no secret worth the name, and may occur in any text by chance."""

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.I)
_NOT_SECRET = re.compile(r"TOKENIZERS_|_(FILE|PATH|DIR|URL)$", re.I)  # a tool's switch, or only a place

_SHAPES = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{16,}",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",
    "a GitLab token": r"\bglpat-[\w-]{16,}",
    "a Slack token": r"\bxox[abeprs]-[\w-]{10,}",
    "a Google API key": r"\bAIza[\w-]{30,}",
    "an API key": r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{20,}|\bwandb_v1_\w{16,}",
    "a web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a URL with a password": r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",
}
_WANDB_KEY = re.compile(r"[0-9a-f]{40}")
_COMMITS = ("revision",)  # keys of values that look like a W&B key, and are commits


def refuse_credentials(values: Mapping[str, object]) -> None:
    """Raises InputError when a config holds a credential: plans and points record every value as it is.

    The message names the key, never the value.
    """
    for key, text in texts(values):
        found = _credential(text)
        if found is None and _WANDB_KEY.fullmatch(text) and key.rpartition(".")[2] not in _COMMITS:
            found = "an API key"
        if found is not None:
            raise InputError(
                f"{key} holds {found}, and a config is written to disk as it is: set credentials in the "
                f"environment, where nothing of ours writes them down"
            )


def redact(text: str) -> str:
    """`text` without credentials: the values of secret variables of the environment, and known shapes."""
    for name, value in _secret_variables():
        text = text.replace(value, f"[{name}]")
    for what, shape in _SHAPES.items():
        text = re.sub(shape, f"[{what}]", text)
    return text


def texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a config, with the key it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item, key)


def _credential(text: str) -> str | None:
    """What kind of credential `text` holds, if any."""
    for name, value in _secret_variables():
        if value in text:
            return f"the value of the environment variable {name}"
    return next((what for what, shape in _SHAPES.items() if re.search(shape, text)), None)


def _secret_variables() -> Iterator[tuple[str, str]]:
    """Variables of the environment that hold a secret by their name."""
    for name, value in os.environ.items():
        is_secret = _SECRET_NAME.search(name) and not _NOT_SECRET.search(name)
        if is_secret and len(value) >= MIN_SECRET_CHARS:
            yield name, value
