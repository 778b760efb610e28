"""The registry of fit methods, the fit of one set of points by all of them, and fit.json.

To add a method, write its module in `sweep.fit.methods` and give it one entry in `METHODS`: fitting, reading
fit.json, the figures and the check of `fit.methods` all use that entry.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config import FitConfig
from sweep.errors import InputError
from sweep.fit.answer import AnswerLaw
from sweep.fit.checks.agreement import Agreement, agreement
from sweep.fit.checks.backtest import backtest
from sweep.fit.checks.backtest_errors import Backtest
from sweep.fit.checks.reconcile import Reconciliation, reconciled
from sweep.fit.combination import combine
from sweep.fit.display import fit_html, fit_text
from sweep.fit.laws.base import Estimate, Law
from sweep.fit.laws.catalogue import published
from sweep.fit.laws.encoding import from_plain, to_plain
from sweep.fit.laws.published import CatalogueLaw, catalogue_law
from sweep.fit.laws.repetition import DataConstrainedLaw
from sweep.fit.methods.data_constrained import fit_data_constrained
from sweep.fit.methods.envelope import EnvelopeLaw, fit_envelope
from sweep.fit.methods.isoflop import IsoflopLaw, fit_isoflop
from sweep.fit.methods.kaplan import KaplanLaw, fit_kaplan
from sweep.fit.methods.overtraining import OvertrainingLaw, fit_overtraining
from sweep.fit.methods.parametric import ParametricLaw, fit_parametric
from sweep.fit.methods.trend import TrendLaw, fit_trend_law
from sweep.fit.methods.windows import name_outliers, select_runs
from sweep.fit.refusals import Refusal, RefusedError
from sweep.fit.table.constraint import Constraint
from sweep.fit.table.filters import AppliedFilter
from sweep.fit.table.observations import ExcludedPoint, Observations, observe, select
from sweep.fit.table.points import from_dataframe
from sweep.records import CurvePoint, Point

if TYPE_CHECKING:  # pandas is slow to import, and a sequence of points does not need it
    import pandas as pd

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A fit method."""

    fit: Callable[[Observations, FitConfig], Law]  # raises RefusedError
    law: type[Law]  # reads the method's entry in fit.json
    color: str  # in figures
    for_backtest: Callable[[Observations, FitConfig], Law] | None = None
    """Fits the same law without the checks that only a report shows; None: `fit` itself."""


def _without_draws(
    method: Callable[[Observations, FitConfig], Law],
) -> Callable[[Observations, FitConfig], Law]:
    """Return the method without draws, for one of little or no weight in the answer."""
    return lambda observations, config: method(observations, dataclasses.replace(config, n_bootstrap=0))


METHODS: dict[str, Method] = {  # colours: Okabe & Ito 2008
    "envelope": Method(
        fit=fit_envelope, law=EnvelopeLaw, color="#009E73", for_backtest=_without_draws(fit_envelope)
    ),
    "isoflop": Method(
        fit=fit_isoflop,
        law=IsoflopLaw,
        color="#0072B2",
        for_backtest=partial(fit_isoflop, with_bias=False),
    ),
    "trend": Method(fit=fit_trend_law, law=TrendLaw, color="#000000"),
    "parametric": Method(
        fit=fit_parametric,
        law=ParametricLaw,
        color="#D55E00",
        for_backtest=partial(fit_parametric, with_checks=False),
    ),
    "kaplan": Method(
        fit=fit_kaplan,
        law=KaplanLaw,
        color="#CC79A7",
        for_backtest=_without_draws(partial(fit_kaplan, with_checks=False)),
    ),
    "data_constrained": Method(fit=fit_data_constrained, law=DataConstrainedLaw, color="#56B4E9"),
    "overtraining": Method(
        fit=fit_overtraining,
        law=OvertrainingLaw,
        color="#E69F00",
        for_backtest=partial(fit_overtraining, with_checks=False),
    ),
}


WITH_E = ("parametric", "data_constrained", "isoflop")
"""Methods with an irreducible loss, in the order in which `Fit.E` takes it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Fit:
    """The laws fitted to one set of points, and the checks on them: the content of fit.json."""

    n_points: int  # fitted
    excluded: tuple[ExcludedPoint, ...]
    flops_range: tuple[float, float] | None  # of the fitted points; None without points
    filters: tuple[AppliedFilter, ...]
    constraint: Constraint
    methods: Mapping[str, Law | Refusal]
    agreement: Agreement | None  # None without a law
    backtest: Backtest | Refusal | None  # None for a published law
    reconcile: Reconciliation | None  # None unless requested
    answer: AnswerLaw | Refusal | None = None  # None for a published law, and for fits of earlier versions
    hyperparameters: Mapping[str, Any] | str | None = None
    # ^ of a sweep: the largest loss gap in the check of its hyperparameters, or "unmeasured"

    @property
    def laws(self) -> dict[str, Law]:
        """The laws of the methods that did not refuse."""
        return {name: law for name, law in self.methods.items() if isinstance(law, Law)}

    @property
    def has_answer(self) -> bool:
        """True if the fit gives an answer, rather than a refusal or none."""
        return self.answer is not None and not isinstance(self.answer, Refusal)

    @property
    def flops_max(self) -> float | None:
        """The budget from which reach counts: of the answer, else the largest C; None without points."""
        if isinstance(self.answer, AnswerLaw):
            return self.answer.flops_max
        return None if self.flops_range is None else self.flops_range[1]

    @property
    def a(self) -> Estimate:
        """Exponent a of N_opt ∝ C^a: that of the answer. Raises AttributeError where it is refused."""
        return self._answering.a

    @property
    def b(self) -> Estimate:
        """Exponent b of D_opt ∝ C^b: that of the answer. Raises AttributeError where it is refused."""
        return self._answering.b

    @property
    def E(self) -> Estimate:  # noqa: N802
        """The irreducible loss by the first method of `WITH_E` that fitted, nats per token.

        Raises AttributeError if none did.
        """
        for name in WITH_E:
            law = self.methods.get(name)
            if isinstance(law, Law):
                return law.E
        return self._answering.E

    @property
    def _answering(self) -> Law:
        """The answer, or the only law of a fit without one. Raises AttributeError where it is refused."""
        if isinstance(self.answer, Refusal):
            raise AttributeError(f"the fit has no answer: {self.answer.reason}")
        found = self.answer or next(iter(self.laws.values()), None)
        if found is None:
            raise AttributeError("the fit has no answer: no method has fitted")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return fit.json as plain JSON types, at full float precision."""
        return {
            "schema_version": SCHEMA_VERSION,
            "points": {
                "n": self.n_points,
                "excluded": to_plain(self.excluded),
                "filters": to_plain(self.filters),
                "flops_range": to_plain(self.flops_range),
            },
            "conventions": {
                "n_params": "n_params",
                "flops": "flops" if self.constraint == "exact" else "flops_6nd",
                "constraint": self.constraint,
            },
            "answer": to_plain(self.answer),
            "methods": to_plain(self.methods),
            "agreement": to_plain(self.agreement),
            "backtest": to_plain(self.backtest) or {},
            "reconcile": to_plain(self.reconcile),
            "hyperparameters": self.hyperparameters,
        }

    def __repr__(self) -> str:
        return fit_text(self.to_json(), self._answer_cells())

    def _repr_html_(self) -> str:
        """Return a table of the methods, for notebooks."""
        return fit_html(self.to_json(), self._answer_cells())

    def _answer_cells(self) -> dict[str, str]:
        if isinstance(self.answer, Refusal):
            return {"refused": self.answer.reason}
        return {} if self.answer is None else {"a": str(self.answer.a), "b": str(self.answer.b)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Fit:
        """Return the inverse of `to_json`.

        Raises:
            InputError: another schema version, or an incomplete document.
        """
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"schema_version={version!r} of this fit.json is not supported, only {SCHEMA_VERSION} is: "
                f"fit again"
            )
        try:
            points = document["points"]
            fitted = cls(
                n_points=points["n"],
                excluded=from_plain(tuple[ExcludedPoint, ...], points["excluded"]),
                flops_range=from_plain(tuple[float, float] | None, points["flops_range"]),
                filters=tuple(AppliedFilter(**applied) for applied in points["filters"]),
                constraint=from_plain(Constraint, document["conventions"]["constraint"]),
                methods={name: _method_from_json(name, entry) for name, entry in document["methods"].items()},
                agreement=from_plain(Agreement | None, document["agreement"]),
                backtest=from_plain(Backtest | Refusal | None, document["backtest"] or None),
                reconcile=from_plain(Reconciliation | None, document["reconcile"]),
                hyperparameters=document.get("hyperparameters"),
            )
            answer = _answer_from_json(document.get("answer"), fitted.laws)
            fitted = dataclasses.replace(fitted, answer=answer)
            fitted._check_laws()
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"the document is not a complete fit.json ({reason}): fit again") from None
        return fitted

    def _check_laws(self) -> None:
        """Evaluate every law once. Raises TypeError, ValueError or IndexError for an invalid one."""
        flops = self.flops_range[1] if self.flops_range else 1e20
        for law in self.laws.values():
            law.estimate("loss_opt", flops)
            law.interval("loss_opt", flops)


def fit(
    points: Sequence[Point] | pd.DataFrame,
    config: FitConfig | None = None,
    *,
    excluded: Mapping[str, str] | None = None,
    curves: Mapping[str, Sequence[CurvePoint]] | None = None,
    reconcile: bool = False,
) -> Fit:
    """Fit every method of `config.methods`; a method that cannot fit the points gives a Refusal.

    `config` defaults to `FitConfig()`. Points that diverged, or with a run key or name in `excluded` (name →
    reason), are listed and not fitted. `curves` are training curves by run key; `reconcile` also refits under
    every counting convention.

    Raises:
        InputError: the points are not a usable table, or a method is unknown.
    """
    config = config or FitConfig()
    names = method_names(config)
    if not isinstance(points, Sequence):
        points = from_dataframe(points)
    observations = observe(
        points,
        excluded,
        filters=config.filters,
        curves=curves,
        allow_mixed_schedules=config.allow_mixed_schedules,
    )
    methods = {name: fit_method(name, observations, config) for name in names}
    laws = {name: law for name, law in methods.items() if isinstance(law, Law)}
    tested, answer = _answer(observations, config, names, laws)
    return Fit(
        n_points=len(observations),
        excluded=observations.excluded,
        flops_range=observations.flops_range if len(observations) else None,
        filters=observations.filters,
        constraint=observations.flops_per_token.kind,
        methods=methods,
        agreement=agreement(laws, observations.flops_range[1]) if laws else None,
        backtest=tested,
        answer=answer,
        reconcile=reconciled(observations, config) if reconcile else None,
    )


def _backtest(observations: Observations, config: FitConfig, names: Sequence[str]) -> Backtest | Refusal:
    if config.isoflop.bias_corrected:
        return backtest(observations, config, {name: METHODS[name].fit for name in names})
    quick = {name: METHODS[name].for_backtest or METHODS[name].fit for name in names}
    return backtest(observations, config, quick)


def _answer(
    observations: Observations, config: FitConfig, names: Sequence[str], laws: Mapping[str, Law]
) -> tuple[Backtest | Refusal, AnswerLaw | Refusal]:
    """Return the backtest and the answer; where there are outliers, both from the points without them."""
    if observations.refusal is not None:
        return observations.refusal, observations.refusal
    outliers = select_runs(observations, config.isoflop.window, drop_outliers=True).outliers
    if not outliers.any():
        tested = _backtest(observations, config, names)
        return tested, combine(observations, laws, tested)
    clean = select(observations, ~outliers)
    fitted = {name: fit_method(name, clean, config) for name in names}
    usable = {name: law for name, law in fitted.items() if isinstance(law, Law)}
    tested = _backtest(clean, config, names)
    return tested, combine(clean, usable, tested, name_outliers(observations, outliers))


def fit_method(name: str, observations: Observations, config: FitConfig) -> Law | Refusal:
    """Fit one method of the registry; a method that cannot fit the points gives a Refusal."""
    if observations.refusal is not None:
        return observations.refusal
    try:
        law = METHODS[name].fit(observations, config)
    except RefusedError as refused:
        return refused.refusal
    return law.warned(observations.warnings)


def method_names(config: FitConfig) -> tuple[str, ...]:
    """Return the names of the methods that `config` selects.

    Raises:
        InputError: a name is not in the registry.
    """
    names = tuple(METHODS) if config.methods is None else config.methods
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise InputError(f"fit.methods={unknown[0]} is unknown: choose from {', '.join(METHODS)}")
    return names


def _answer_from_json(entry: Mapping[str, Any] | None, laws: Mapping[str, Law]) -> AnswerLaw | Refusal | None:
    """Decode the entry `answer`, given the laws under `methods`."""
    if entry is None:
        return None
    if "refused" in entry:
        return Refusal.from_json(entry)
    own = {name: METHODS[name].law.from_json(law) for name, law in entry.get("laws", {}).items()}
    return AnswerLaw.from_json({**entry, "laws": own or laws})


def published_fit(name: str) -> Fit:
    """Return the published law `name` as a Fit without points; its range is that of the law's own points.

    Raises:
        InputError: there is no published law of that name.
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
        backtest=None,
        reconcile=None,
    )


def read_fit(path: str | Path) -> Fit:
    """Read a fit.json.

    Raises:
        InputError: the file is missing, not JSON, or not a fit.json of this schema version.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(f"{path} not found: give the path of a fit.json") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable as JSON ({error}): fit again") from None
    if not isinstance(document, dict):
        raise InputError(f"{path} is not a fit.json: its content is not a JSON object")
    try:
        return Fit.from_json(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not a valid number")


def _method_from_json(name: str, entry: Mapping[str, Any]) -> Law | Refusal:
    if "refused" in entry:
        return Refusal.from_json(entry)
    if "published" in entry:
        return CatalogueLaw.from_json(entry)
    if name not in METHODS:
        raise InputError(f"methods.{name} is unknown: choose from {', '.join(METHODS)}")
    return METHODS[name].law.from_json(entry)
