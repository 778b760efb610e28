"""Types of config values: constrained numbers, names and named choices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", name):
        raise ValueError("use letters, digits and . _ + -, at most 100, starting with a letter or digit")
    if re.fullmatch(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", name, re.IGNORECASE):
        raise ValueError("Windows cannot store a directory with this name, and results may be copied there")
    return name


_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
POWER_TERM = re.compile(rf"(N|N_non_embedding|D)\s*\^\s*({_NUMBER})")
POWER_LAW = re.compile(rf"\s*({_NUMBER})((?:\s*\*\s*(?:N|N_non_embedding|D)\s*\^\s*{_NUMBER})+)\s*")
"""A rule given by its formula: a factor, and powers of N parameters and D tokens."""


def _check_set_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or name == "stderr":  # loss_stderr is another column
        raise ValueError("use lower-case letters, digits and _, at most 40, starting with a letter")
    return name


def _check_rule(value: Any) -> Any:
    if not isinstance(value, str) or not (
        re.fullmatch(r"[a-z][a-z0-9_]*", value) or POWER_LAW.fullmatch(value)
    ):
        raise ValueError(
            "it should be the name of a rule, or a power law such as '1.79 * N^-0.713 * D^0.307'"
        )
    return value


def _check_number(value: Any) -> Any:
    if isinstance(value, (bool, str)):
        raise ValueError("it should be a number, without quotes")
    return value


def _check_flag(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("it should be true or false, without quotes")
    return value


Int = Annotated[int, BeforeValidator(_check_number)]
Float = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_check_number)]
"""Numbers; true is not read as 1, and "1" not as 1."""
Flag = Annotated[bool, BeforeValidator(_check_flag)]
"""true or false; 1 and "yes" are not read as true."""
Count = Annotated[Int, Field(gt=0, lt=2**63)]
NonNegativeCount = Annotated[Int, Field(ge=0, lt=2**63)]
NewtonSchulzSteps = Annotated[Int, Field(gt=0, le=20)]
Seed = Annotated[Int, Field(ge=0, lt=2**63)]  # the range of torch's generators
Positive = Annotated[Float, Field(gt=0, le=1e30, allow_inf_nan=False)]  # a larger number is a typing error
NonNegative = Annotated[Float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
OpenFraction = Annotated[Float, Field(gt=0, lt=1)]
DecayFraction = Annotated[Float, Field(gt=0, le=1)]
ClosedFraction = Annotated[Float, Field(ge=0, le=1)]
Name = Annotated[str, AfterValidator(_check_name)]
SetName = Annotated[str, AfterValidator(_check_set_name)]
"""Name of an evaluation set or of a part of a mixture, also a part of column names."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

Activation = Literal["gelu", "gelu_exact", "relu2", "swiglu"]
MLP_MATRICES: Mapping[Activation, int] = {"gelu": 2, "gelu_exact": 2, "relu2": 2, "swiglu": 3}
"""Matrices of the MLP by activation: up, down, and the gate of a gated one (Shazeer 2020, section 2)."""
Norm = Literal["rms", "layer"]
Positions = Literal["rope", "learned"]
ScheduleName = Literal["cosine", "linear", "constant", "wsd"]
Precision = Literal["fp32", "bf16"]
OptimizerName = Literal["adamw", "muon", "sgd"]
MuonScaling = Literal["match_rms_adamw", "original"]
Parametrization = Literal["standard", "mup"]
RuleName = Annotated[str, BeforeValidator(_check_rule)]
"""The name of a rule in the registries of `sweep.plan.rules`, which planning checks, or a power law."""

STRICT = ConfigDict(extra="forbid")
"""Refuses unknown keys; every config class has it as `__pydantic_config__`."""
