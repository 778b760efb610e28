"""Detection and redaction of credentials in text that is written to files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from sweep.errors import InputError

MIN_SECRET_CHARS = 8
"""Shorter values of secret variables are ignored: they may occur in any text by chance."""

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.I)
_NOT_SECRET = re.compile(r"TOKENIZERS_|_(FILE|PATH|DIR|URL)$", re.I)  # a tool's switch, or a location

_PATTERNS = {
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
_COMMITS = ("revision",)  # keys of commit hashes, which have the form of a W&B key


def refuse_credentials(values: Mapping[str, object]) -> None:
    """Raise InputError when a config contains a credential: plans and points record every value verbatim.

    The message names the key, never the value.
    """
    for key, text in texts(values):
        found = _credential(text)
        if found is None and _WANDB_KEY.fullmatch(text) and key.rpartition(".")[2] not in _COMMITS:
            found = "an API key"
        if found is not None:
            raise InputError(
                f"{key} contains {found}, and configs are written to disk verbatim: set credentials in "
                f"environment variables, which are never written to disk"
            )


def redact(text: str) -> str:
    """Return `text` without credentials: values of secret environment variables, and known patterns."""
    for name, value in _secret_variables():
        text = text.replace(value, f"[{name}]")
    for kind, pattern in _PATTERNS.items():
        text = re.sub(pattern, f"[{kind}]", text)
    return text


def texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a config with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item, key)


def _credential(text: str) -> str | None:
    """Return the kind of credential that `text` contains, or None."""
    for name, value in _secret_variables():
        if value in text:
            return f"the value of the environment variable {name}"
    return next((kind for kind, pattern in _PATTERNS.items() if re.search(pattern, text)), None)


def _secret_variables() -> Iterator[tuple[str, str]]:
    """Yield the names and values of environment variables with a secret's name."""
    for name, value in os.environ.items():
        is_secret = _SECRET_NAME.search(name) and not _NOT_SECRET.search(name)
        if is_secret and len(value) >= MIN_SECRET_CHARS:
            yield name, value
