"""Every combination of the keys that choose an architecture, on one small shape."""

import itertools
from dataclasses import replace

from sweep.config import ModelConfig
from tests.configs import TINY

CHOICES = {
    "norm": ("rms", "layer"),
    "positions": ("rope", "learned"),
    "activation": ("relu2", "gelu", "swiglu"),
    "bias": (False, True),
    "n_kv_heads": (4, 2),
    "qk_norm": (True, False),
    "tied": (True, False),
}


def architectures(**changes: object) -> list[ModelConfig]:
    """TINY with four heads in all 192 combinations, `changes` applied to each."""
    base = replace(TINY, n_heads=4, n_kv_heads=4)
    return [
        replace(base, **(dict(zip(CHOICES, values, strict=True)) | changes))
        for values in itertools.product(*CHOICES.values())
    ]


def label(model: ModelConfig) -> str:
    """Return a test id: the choices in order."""
    return "-".join(str(getattr(model, key)) for key in CHOICES)
