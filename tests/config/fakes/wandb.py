"""A fake of wandb that records the arguments of `init`, for this process and for the probe of `decide`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

STARTED: list[dict[str, Any]] = []


class Settings(SimpleNamespace):
    """The settings of a run, as given."""

    model_fields: ClassVar[dict[str, Any]] = {}


def setup() -> SimpleNamespace:
    return SimpleNamespace(settings=SimpleNamespace(mode=None, base_url="file:///dev/null"))


def login(**options: Any) -> bool:
    return True


def init(*, settings: Settings, **options: Any) -> SimpleNamespace:
    STARTED.append({**options, "mode": settings.mode})
    return SimpleNamespace()
