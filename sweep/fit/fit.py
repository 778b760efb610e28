"""Runs every method asked for on one set of points, and owns fit.json.

`METHODS` is the registry: a method is one function of the observations and the config that returns its law or
raises RefusedError; `LAWS` reads its entry in fit.json back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.fit.checks.agreement import agreement
from sweep.fit.checks.backtest import backtest
from sweep.fit.checks.reconcile import reconciled
from sweep.fit.html import fit_html
from sweep.fit.laws.base import Law
from sweep.fit.laws.catalogue import published
from sweep.fit.laws.published import CatalogueLaw, catalogue_law
from sweep.fit.laws.repetition_law import DataConstrainedLaw
from sweep.fit.methods.data_constrained import fit_data_constrained
from sweep.fit.methods.envelope import EnvelopeLaw, fit_envelope
from sweep.fit.methods.isoflop import IsoflopLaw, fit_isoflop
from sweep.fit.methods.kaplan import KaplanLaw, fit_kaplan
from sweep.fit.methods.overtraining import OvertrainingLaw, fit_overtraining
from sweep.fit.methods.parametric import ParametricLaw, fit_parametric
from sweep.fit.refusals import Refusal, RefusedError
from sweep.fit.table.constraint import Constraint
from sweep.fit.table.filters import NO_FILTERS, AppliedFilter
from sweep.fit.table.observations import ExcludedPoint, Observations, observe
from sweep.fit.table.points import from_dataframe
from sweep.records import CurvePoint, Point

if TYPE_CHECKING:  # pandas takes long to import, and points need none of it
    import pandas as pd

SCHEMA_VERSION = 1
METHODS: dict[str, Callable[[Observations, FitConfig], Law]] = {
    "envelope": fit_envelope,
    "isoflop": fit_isoflop,
    "parametric": fit_parametric,
    "kaplan": fit_kaplan,
    "data_constrained": fit_data_constrained,
    "overtraining": fit_overtraining,
}
LAWS: dict[str, Callable[[Mapping[str, Any]], Law]] = {
    "envelope": EnvelopeLaw.from_json,
    "isoflop": IsoflopLaw.from_json,
    "parametric": ParametricLaw.from_json,
    "kaplan": KaplanLaw.from_json,
    "data_constrained": DataConstrainedLaw.from_json,
    "overtraining": OvertrainingLaw.from_json,
}
DEFAULTS = FitConfig(
    methods=("envelope", "isoflop", "parametric", "kaplan", "data_constrained", "overtraining"),
    huber_delta=1e-3,
    residuals="log",
    irreducible_loss=None,
    isoflop_robust=False,
    isoflop_bias_corrected=False,
    kaplan_n_params="non_embedding",
    data_constrained_base=None,
    n_bootstrap=1000,
    confidence=0.95,
    max_interval_factor=10.0,
    seed=0,
    filters=NO_FILTERS,
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fit:
    """What was fitted to which points: the content of fit.json."""

    n_points: int  # fitted
    excluded: tuple[ExcludedPoint, ...]
    flops_range: tuple[float, float] | None  # of the fitted points; None when there are none
    filters: tuple[AppliedFilter, ...]
    constraint: Constraint
    methods: Mapping[str, Law | Refusal]
    agreement: Mapping[str, Any] | None  # None without a law
    backtest: Mapping[str, Any]  # or {"refused": ..}
    reconcile: Mapping[str, Any] | None  # None unless asked for
    hyperparameters: Mapping[str, Any] | str | None = None
    # ^ of a sweep: what the worst corner of its check leaves on the table, or "unmeasured"

    @property
    def laws(self) -> dict[str, Law]:
        """The methods that did not refuse."""
        return {name: law for name, law in self.methods.items() if isinstance(law, Law)}

    def to_json(self) -> dict[str, Any]:
        """fit.json as plain JSON types, at full float precision."""
        return {
            "schema_version": SCHEMA_VERSION,
            "points": {
                "n": self.n_points,
                "excluded": [{"run_key": point.run_key, "reason": point.reason} for point in self.excluded],
                "filters": [applied.to_json() for applied in self.filters],
                "flops_range": None if self.flops_range is None else list(self.flops_range),
            },
            "conventions": {
                "n_params": "n_params",
                "flops": "flops" if self.constraint == "exact" else "flops_6nd",
                "constraint": self.constraint,
            },
            "methods": {name: method.to_json() for name, method in self.methods.items()},
            "agreement": None if self.agreement is None else dict(self.agreement),
            "backtest": dict(self.backtest),
            "reconcile": None if self.reconcile is None else dict(self.reconcile),
            "hyperparameters": self.hyperparameters,
        }

    def _repr_html_(self) -> str:
        """A table of the methods, in a notebook."""
        return fit_html(self.to_json())

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Fit:
        """The inverse of `to_json`.

        Raises:
            InputError: another schema version, or keys missing.
        """
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(f"schema_version={version!r} of a fit.json is not {SCHEMA_VERSION}: fit again")
        try:
            points, flops_range = document["points"], document["points"]["flops_range"]
            fitted = cls(
                n_points=points["n"],
                excluded=tuple(ExcludedPoint(**point) for point in points["excluded"]),
                flops_range=None if flops_range is None else (float(flops_range[0]), float(flops_range[1])),
                filters=tuple(AppliedFilter(**applied) for applied in points["filters"]),
                constraint=document["conventions"]["constraint"],
                methods={name: _method_from_json(name, entry) for name, entry in document["methods"].items()},
                agreement=document["agreement"],
                backtest=document["backtest"],
                reconcile=document["reconcile"],
                hyperparameters=document.get("hyperparameters"),
            )
            fitted._check_answers()
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"the document is not a complete fit.json ({what}): fit again") from None
        return fitted

    def _check_answers(self) -> None:
        """Raises TypeError, ValueError or IndexError where the parts are not such as `to_json` writes."""
        for name in ("agreement", "backtest", "reconcile"):
            part = getattr(self, name)
            if part is not None and not isinstance(part, Mapping):
                raise TypeError(f"{name} is {part!r}")
        flops = self.flops_range[1] if self.flops_range else 1e20
        for law in self.laws.values():
            law.estimate("loss_opt", flops)
            law.interval("loss_opt", flops)


def fit(
    points: Sequence[Point] | pd.DataFrame,
    config: FitConfig = DEFAULTS,
    *,
    excluded: Mapping[str, str] | None = None,
    curves: Mapping[str, Sequence[CurvePoint]] | None = None,
    reconcile: bool = False,
) -> Fit:
    """Fit every method of `config.methods`; one that cannot answer is a Refusal in its place.

    Points that diverged, or whose run key or name is in `excluded` (name → reason), are listed, not fitted.
    `curves` are training curves by run key; `reconcile` also refits under every counting convention.

    Raises:
        InputError: the points are no usable table.
    """
    if not isinstance(points, Sequence):
        points = from_dataframe(points)
    observations = observe(
        points,
        excluded,
        filters=config.filters,
        curves=curves,
        allow_mixed_schedules=config.allow_mixed_schedules,
    )
    methods: dict[str, Law | Refusal] = {name: _answer(name, observations, config) for name in config.methods}
    laws: dict[str, Law] = {name: law for name, law in methods.items() if isinstance(law, Law)}
    tested = _backtest(observations, config)
    return Fit(
        n_points=len(observations),
        excluded=observations.excluded,
        flops_range=observations.flops_range if len(observations) else None,
        filters=observations.filters,
        constraint=observations.flops_per_token.kind,
        methods=methods,
        agreement=agreement(laws, observations.flops_range[1]) if laws else None,
        backtest=tested.to_json() if isinstance(tested, Refusal) else tested,
        reconcile=reconciled(observations, config) if reconcile else None,
    )


def _backtest(observations: Observations, config: FitConfig) -> dict[str, Any] | Refusal:
    if observations.refusal is not None:
        return observations.refusal
    return backtest(observations, config, {name: METHODS[name] for name in config.methods})


def published_fit(name: str) -> Fit:
    """A fit.json's worth of the published law `name`: its range stands for the points'.

    Raises:
        InputError: there is none of that name.
    """
    law = published(name)
    return Fit(
        n_points=0,
        excluded=(),
        flops_range=law.flops_range,
        filters=(),
        constraint="6nd",
        methods={name: catalogue_law(name)},
        agreement=None,
        backtest={},
        reconcile=None,
    )


def read_fit(path: str | Path) -> Fit:
    """Read a fit.json.

    Raises:
        InputError: the file is missing, no JSON, or no fit.json of this schema version.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise InputError(f"law={path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"law={path}: it cannot be read as JSON ({error})") from None
    if not isinstance(document, dict):
        raise InputError(f"law={path}: it holds no JSON object, so it is no fit.json")
    try:
        return Fit.from_json(document)
    except InputError as error:
        raise InputError(f"law={path}: {error}") from None


def _no_number(constant: str) -> float:
    raise ValueError(f"it holds {constant}, which is no number")


def _answer(name: str, observations: Observations, config: FitConfig) -> Law | Refusal:
    if observations.refusal is not None:
        return observations.refusal
    try:
        law = METHODS[name](observations, config)
    except RefusedError as refused:
        return refused.refusal
    return law.warned(observations.warnings)


def _method_from_json(name: str, entry: Mapping[str, Any]) -> Law | Refusal:
    if "refused" in entry:
        return Refusal(kind=entry["kind"], reason=entry["refused"])
    if "published" in entry:
        return CatalogueLaw.from_json(entry)
    if name not in LAWS:
        raise InputError(f"methods.{name} is not a known method: choose from {', '.join(LAWS)}")
    return LAWS[name](entry)
