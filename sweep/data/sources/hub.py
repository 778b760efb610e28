"""Access to the Hugging Face hub: repositories pinned to a commit, short timeouts, one-sentence errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.errors import DataError, InputError

TIMEOUT_S = 10.0  # of the one request that checks for a connection; the hub's own client retries for longer

FILE_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".csv", ".tsv", ".txt", ".gz", ".zst")
"""Ends of names of local files: a name with one of them is not looked up on the hub."""

_URL_PREFIX = {"dataset": "datasets/", "model": ""}  # before a repository's name in the hub's URLs

_OFFLINE_REMEDY: Mapping[str, str] = {
    "dataset": "prepare the data on a machine with network access and copy data_dir here, "
    "or copy its .parquet or .jsonl files here and give data.dataset=DIR",
    "model": "copy the tokenizer.json here and give tokenizer.path=FILE",
}


def is_path(name: str) -> bool:
    """Return True for a local path: it exists, or does not have the form of a name on the hub.

    A link to a missing file exists, and a name that ends as files of text do is that of a file.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or os.path.lexists(name):
        return True
    return name.endswith(FILE_SUFFIXES)


def check_no_url(key: str, name: str) -> None:
    """Raise InputError for a URL where a path or a name on the hub is needed."""
    if "://" in name:
        raise InputError(f"{key}={name} is a URL: give OWNER/NAME on the Hugging Face hub, or a local path")


def check_pinned(key: str, name: str, revision: str | None) -> None:
    """Raise InputError unless `revision` is a commit hash: branches and tags can change."""
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        section = key.partition(".")[0]
        given = " is missing" if revision is None else f"={revision} is not a commit"
        raise InputError(
            f"{section}.revision{given}: give the 40 hex digits of a commit, from the history of {name} on "
            f"the hub (if {name} should be a local path: it was not found)"
        )


def check_reachable(kind: str, key: str, name: str, revision: str) -> None:
    """Check with one request that a "dataset" or "model" can be read from the hub.

    Raises:
        DataError: The hub does not answer, the name or commit is not found, or access is denied.
    """
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi()
    address = f"{api.endpoint}/{_URL_PREFIX[kind]}{name}"
    try:
        api.repo_info(name, repo_type=kind, revision=revision, timeout=TIMEOUT_S)
    except errors.GatedRepoError:
        reason = f"is gated: accept its terms at {address}, then run hf auth login"
    except errors.RevisionNotFoundError:
        reason = f"has no commit {revision}: choose one from {address}/commits/main"
    except errors.RepositoryNotFoundError:
        reason = f"not found on the hub, or private: check the name at {address}, or run hf auth login"
    except Exception as error:  # the client raises errors of two HTTP libraries
        reason = (
            f"is not available, {api.endpoint} does not answer ({first_line(error)}): {_OFFLINE_REMEDY[kind]}"
        )
    else:
        return
    raise DataError(f"{key}={name} {reason}")


def download(key: str, name: str, revision: str, file: str) -> Path:
    """Return the local path of one file of a model at a commit; downloaded once, then read from the cache.

    Raises:
        DataError: As `check_reachable`, or the model has no such file.
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
        raise DataError(f"{key}={name}: download of {file} failed ({first_line(error)}): try again") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
