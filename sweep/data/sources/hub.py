"""The Hugging Face hub: names pinned to a commit, reached at once or not at all, errors in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.errors import DataError, InputError

TIMEOUT_S = 10.0  # for the one question that tells whether the hub answers; its own client retries for longer

_REPOSITORY = {"dataset": "datasets/", "model": ""}  # what stands before a name in the hub's addresses

_INSTEAD: Mapping[str, str] = {
    "dataset": "prepare the data where there is a network and copy data_dir here, or copy its .parquet or "
    ".jsonl files here and give data.dataset=DIR",
    "model": "copy the tokenizer.json here and give tokenizer.path=FILE",
}
"""What to do without a network."""


def is_path(name: str) -> bool:
    """Whether a name means something on this machine: it is there, or is written as only a path is."""
    return Path(name).expanduser().exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)


def check_pinned(key: str, name: str, revision: str | None) -> None:
    """Raises InputError unless `revision` is a commit: branches and tags move, and results with them."""
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        section = key.partition(".")[0]
        raise InputError(
            f"{section}.revision={revision} is no commit: give the 40 hex digits of one, from the history of "
            f"{name} on the hub (or, if {name} is a path, it is not there)"
        )


def check_reachable(kind: str, key: str, name: str, revision: str) -> None:
    """Asks the hub once whether a "dataset" or "model" is there.

    Raises:
        DataError: The hub does not answer, or has no such name or commit, or does not let us have it.
    """
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi()
    address = f"{api.endpoint}/{_REPOSITORY[kind]}{name}"
    try:
        api.repo_info(name, repo_type=kind, revision=revision, timeout=TIMEOUT_S)
    except errors.GatedRepoError:
        reason = f"asks for consent and a login: agree to its terms at {address}, then run hf auth login"
    except errors.RevisionNotFoundError:
        reason = f"has no commit {revision}: see {address}/commits/main"
    except errors.RepositoryNotFoundError:
        reason = f"is not on the hub, or is private: check the name at {address}, or run hf auth login"
    except Exception as error:  # the client's own errors are those of two HTTP libraries
        reason = f"cannot be had, {api.endpoint} does not answer ({first_line(error)}): {_INSTEAD[kind]}"
    else:
        return
    raise DataError(f"{key}={name} {reason}")


def download(key: str, name: str, revision: str, file: str) -> Path:
    """One file of a model at a commit, from the client's cache where it was fetched before.

    Raises:
        DataError: As `check_reachable`, or there is no such file.
    """
    import huggingface_hub

    cached: Any = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    check_reachable("model", key, name, revision)
    try:
        return Path(huggingface_hub.hf_hub_download(name, file, revision=revision))
    except huggingface_hub.errors.EntryNotFoundError:
        raise DataError(f"{key}={name} has no {file} at {revision}: choose a model that has one") from None
    except Exception as error:
        raise DataError(f"{key}={name}: {file} cannot be fetched ({first_line(error)}): try again") from None


def first_line(error: BaseException) -> str:
    """What an error says, its first line only."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
