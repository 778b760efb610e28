"""The SQL copy of points, and the database URLs that a config may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qsl

from pydantic import ConfigDict

from sweep.config.places import user_path
from sweep.config.values import STRICT
from sweep.errors import InputError

SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg")
FORMS = "sqlite:///FILE or postgresql://USER@HOST/DATABASE"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreConfig:
    """A copy of the points in addition to the sweep's own files.

    A config is stored in plan files and printed, so a URL with a password in it is refused.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    index_url: str | None = None
    """Database that gets a copy of every point, sqlite:///FILE or postgresql://USER@HOST/DATABASE, without a
    password, which belongs in ~/.pgpass, PGPASSWORD or SWEEP_INDEX_URL; null: no copy."""

    def __post_init__(self) -> None:
        if self.index_url is None:
            return
        check_index_url(self.index_url, "store.index_url")
        if _holds_password(self.index_url):
            raise InputError(
                "store.index_url holds a password, which would be stored in plan files: leave it out and put "
                "it in ~/.pgpass (or PGPASSFILE), in PGPASSWORD, or give the whole URL in SWEEP_INDEX_URL"
            )


def check_index_url(url: str, place: str) -> None:
    """Raise InputError unless `url` is of a supported database; the message quotes no part of the URL."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        kind = f"{scheme}://... is not a supported database" if separator else "is not a URL"
        raise InputError(f"{place}{'=' if separator else ' '}{kind}: give {FORMS}")
    if scheme == "sqlite" and (rest[:1] != "/" or rest.partition("?")[0][1:] in ("", ":memory:")):
        raise InputError(f"{place} names no SQLite file: give sqlite:///FILE, or sqlite:////DIR/FILE")


def absolute_index_url(url: str) -> str:
    """Return the URL with an absolute path of a SQLite file, since workers have other working directories.

    >>> absolute_index_url("postgresql://me@db/points")
    'postgresql://me@db/points'
    """
    if not url.startswith("sqlite:///"):
        return url
    path, mark, query = url.removeprefix("sqlite:///").partition("?")
    return f"sqlite:///{user_path(path, 'store.index_url').absolute()}{mark}{query}"


def _holds_password(url: str) -> bool:
    """Return whether any URL parser could find a password in `url`."""
    scheme, _, rest = url.partition("://")
    keys = [key.lower() for key, _ in parse_qsl(rest.partition("?")[2], keep_blank_values=True)]
    if any("password" in key for key in keys):
        return True
    return scheme != "sqlite" and ":" in rest.rpartition("@")[0]
