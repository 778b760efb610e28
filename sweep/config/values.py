"""The values config fields may take: constrained numbers, names, and the choices of every registry."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", name):
        raise ValueError("a name is letters, digits and . _ + -, at most 100, the first a letter or digit")
    if re.fullmatch(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", name, re.IGNORECASE):
        raise ValueError("no directory can be called that on Windows, where results may be copied")
    return name


Count = Annotated[int, Field(gt=0, lt=2**63)]
NonNegativeCount = Annotated[int, Field(ge=0, lt=2**63)]
NewtonSchulzSteps = Annotated[int, Field(gt=0, le=20)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what torch's generators take
Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]  # a larger number is a slip
NonNegative = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
DecayFraction = Annotated[float, Field(gt=0, le=1)]
ClosedFraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, AfterValidator(_check_name)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

Activation = Literal["gelu", "gelu_exact", "relu2", "swiglu"]
Norm = Literal["rms", "layer"]
Positions = Literal["rope", "learned"]
ScheduleName = Literal["cosine", "linear", "constant", "wsd"]
Precision = Literal["fp32", "bf16"]
OptimizerName = Literal["adamw", "muon", "sgd"]
MuonScaling = Literal["match_rms_adamw", "original"]
Parametrization = Literal["standard", "mup"]
LrRule = Literal["tiny", "tiny_bpe", "step_law", "deepseek", "porian", "kaplan"]
BatchRule = Literal["tiny", "tiny_bpe", "step_law", "deepseek", "porian"]
WarmupRule = Literal["n_params"]
WeightDecayRule = Literal["power_lines"]
Beta2Rule = Literal["half_life"]

STRICT = ConfigDict(extra="forbid")
"""Unknown keys are refused; every config class carries this as `__pydantic_config__`."""
