"""Arguments of the commands in messages, ready to be copied into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def path_argument(path: Path | str) -> str:
    """Return a path in the quotes that a shell needs.

    A relative path that begins with ~ or - gets a leading ./: without it, commands read it as a home
    directory or as an option.

    >>> path_argument("my results/one")
    "'my results/one'"
    >>> path_argument(Path("~one"))
    "'./~one'"
    """
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith(("~", "-")) else text)
