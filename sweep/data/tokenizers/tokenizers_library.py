"""The `tokenizers` library: asked for where it is needed, and kept from hanging forked children."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sweep.errors import InputError


def tokenizers_library(name: str) -> Any:
    """The library. Raises InputError when it is not installed; `name` is the tokenizer that needs it."""
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            f"tokenizer={name} needs the tokenizers library: pip install 'sweep[train]', "
            f"or use tokenizer=byte"
        ) from None
    return tokenizers


_PARALLELISM = "TOKENIZERS_PARALLELISM"
_USERS_CHOICE = os.environ.get(_PARALLELISM)
_IMPORTED_IN = os.getpid()


@contextmanager
def all_cores() -> Iterator[None]:
    """Lets the library use all cores, and leaves it told not to.

    A forked child inherits the library's thread pool without its threads: it hangs if it uses them, and some
    versions warn of that at every fork unless the variable is set. A choice of the user's is kept.
    """
    all_cores = "true" if os.getpid() == _IMPORTED_IN else "false"
    os.environ[_PARALLELISM] = _USERS_CHOICE or all_cores
    try:
        yield
    finally:
        os.environ[_PARALLELISM] = _USERS_CHOICE or "false"
