"""Calibrates the answer of a fit on published sweeps.

Usage: python -m scripts.benchmarks.calibrate_answer DIR

DIR holds tables (CSV) with n_params, n_tokens, flops_budget and loss. Each table is cut at every budget that
leaves at least three, every method is fitted to the smaller budgets, and its predictions are compared with
the measured optimum of the larger ones. Prints the median form error of each method per e-fold of reach, the
constants of `sweep.fit.combination`, and the coverage and errors of the answer with these constants, by
table. A median over tables leaves the influence of a single one small; `without` repeats it leaving each
table out.

Also prints coverage and width for other values of DISAGREEMENT, each with the narrowest prior of the grid
whose intervals hold MIN_COVERAGE of the cases.

The last tables leave one sweep out: form errors of the methods are then the medians over the other sweeps,
and the prior of the answer is the narrowest of a grid whose intervals hold MIN_COVERAGE of the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sweep.config import FitConfig
from sweep.fit import Refusal, fit
from sweep.fit.answer import DISAGREEMENT, TARGETS, AnswerLaw
from sweep.fit.checks.backtest_errors import Backtest, BudgetError, MethodBacktest, Target
from sweep.fit.combination import ANSWER_PRIORS, METHOD_PRIORS, calibrated
from sweep.fit.numerics.form_error import FormPrior

CONFIDENCE = 0.9
MIN_COVERAGE = 0.93  # mean over tables
PRIOR_FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5)  # of the committed medians
DISAGREEMENTS = (0.0, 0.2, 0.4, 0.6, 1.0)
MAX_REACH = math.log(40.0)  # e-folds: beyond, tables have too few targets


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodError:
    """The error of one method's prediction at one larger budget."""

    table: str
    method: str
    target: Target
    per_efold: float  # form error over reach, with the expected contribution of noise subtracted


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerError:
    """The error of the answer's prediction at one larger budget."""

    table: str
    target: Target
    error: float  # of the logarithm
    half_width: float  # of the interval of the logarithm
    is_held: bool  # the interval, with the standard error of the measurement, holds the measured optimum


def read(path: Path) -> pd.DataFrame:
    """Return a table with a column `flops`."""
    table = pd.read_csv(path)
    return table if "flops" in table else table.assign(flops=table["flops_budget"])


def method_errors(name: str, backtest: Backtest | Refusal | None) -> Iterator[MethodError]:
    """Yield the errors of all methods at all cuts of a table."""
    if not isinstance(backtest, Backtest):
        return
    for level in backtest.errors:
        for method, targets in level.methods.items():
            for target, error in targets.items():
                excess = math.sqrt(max(error.error**2 - error.variance, 0.0))
                yield MethodError(table=name, method=method, target=target, per_efold=excess / error.reach)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Case:
    """A sweep fitted without its largest budgets, and what was measured there."""

    table: str
    answer: AnswerLaw
    backtest: Backtest | Refusal | None
    truths: Mapping[float, BudgetError]  # by budget

    def recombined(
        self,
        method_priors: Mapping[str, Mapping[Target, float]],
        answer_priors: Mapping[Target, FormPrior],
        disagreement: float = DISAGREEMENT,
    ) -> Case:
        """Return the case with other constants in the answer."""
        weights, form = calibrated(
            self.answer.laws,
            self.backtest,
            self.answer.flops_max,
            method_priors=method_priors,
            answer_priors=answer_priors,
        )
        answer = dataclasses.replace(self.answer, weights=weights, form=form, disagreement=disagreement)
        return dataclasses.replace(self, answer=answer)

    def errors(self) -> Iterator[AnswerError]:
        """Yield the errors of the answer at every larger budget."""
        for budget, truth in self.truths.items():
            assert truth.true_loss_opt is not None
            assert truth.true_n_params_opt is not None
            yield _answer_error(self.table, "loss", self.answer, budget, truth.true_loss_opt)
            yield _answer_error(self.table, "n_params", self.answer, budget, truth.true_n_params_opt)


def cases_of(name: str, table: pd.DataFrame, whole: Backtest, config: FitConfig) -> Iterator[Case]:
    """Yield the fit of a table at every cut, with the measured optima up to MAX_REACH beyond it."""
    budgets = sorted(table["flops_budget"].unique())
    truths = {entry.flops_budget: entry for cut in whole.cuts for entry in _entries(cut.methods)}
    measured = {
        budget: truth
        for budget in budgets
        if (truth := truths.get(budget)) is not None
        and truth.true_loss_opt is not None
        and truth.true_n_params_opt is not None
    }
    for n_fitted in range(3, len(budgets)):
        fitted = fit(table[table["flops_budget"].isin(budgets[:n_fitted])], config)
        if isinstance(fitted.answer, AnswerLaw):
            largest = budgets[n_fitted - 1]
            near = {b: t for b, t in measured.items() if 0 < math.log(b / largest) <= MAX_REACH}
            yield Case(table=name, answer=fitted.answer, backtest=fitted.backtest, truths=near)


def leave_one_out(cases: Sequence[Case], by_method: pd.DataFrame) -> Iterator[AnswerError]:
    """Yield the errors of the answer in each table, with constants from the other tables."""
    for name in dict.fromkeys(case.table for case in cases):
        others = [case for case in cases if case.table != name]
        priors = median_form_errors(by_method[by_method["table"] != name])
        chosen = {target: choose_prior(target, others, priors)[0] for target in TARGETS}
        print(name, {target: prior.median for target, prior in chosen.items()})
        for case in cases:
            if case.table == name:
                yield from case.recombined(priors, chosen).errors()


def median_form_errors(errors: pd.DataFrame) -> dict[str, dict[Target, float]]:
    """Return each method's median over tables; the committed constant where no table has it."""
    by_table = _by_table(errors)
    found = {name: dict(constants) for name, constants in METHOD_PRIORS.items()}
    for (method, target), values in by_table.groupby(level=["method", "target"]):
        if method in found and len(values) > 1:
            found[method][target] = float(values.median())
    return found


def choose_prior(
    target: Target,
    cases: Sequence[Case],
    method_priors: Mapping[str, Mapping[Target, float]],
    disagreement: float = DISAGREEMENT,
) -> tuple[FormPrior, pd.Series]:
    """Return the narrowest prior at which the mean coverage over tables is at least MIN_COVERAGE.

    Also the means over tables of coverage and of the median half-width with it.
    """
    committed = ANSWER_PRIORS[target]
    for factor in PRIOR_FACTORS:
        prior = dataclasses.replace(committed, median=committed.median * factor)
        priors = {**ANSWER_PRIORS, target: prior}
        errors = [
            error
            for case in cases
            for error in case.recombined(method_priors, priors, disagreement).errors()
            if error.target == target
        ]
        means = summarise(errors).mean()
        if means["coverage"] >= MIN_COVERAGE:
            break
    return prior, means


def print_disagreements(cases: Sequence[Case]) -> None:
    """Print the prior, coverage and width that each part of the disagreement leads to."""
    for target in TARGETS:
        for disagreement in DISAGREEMENTS:
            prior, means = choose_prior(target, cases, METHOD_PRIORS, disagreement)
            print(
                f"  {target:9s} disagreement {disagreement:.1f}, prior {prior.median:.4f}: coverage "
                f"{means['coverage']:.3f}, half-width {means['median_half_width']:.4f}"
            )


def _entries(methods: Mapping[str, MethodBacktest | Refusal]) -> tuple[BudgetError, ...]:
    """Return the measured optima that one cut's errors hold."""
    tested = [method for method in methods.values() if isinstance(method, MethodBacktest)]
    return tested[0].budgets if tested else ()


def _answer_error(name: str, target: Target, answer: AnswerLaw, flops: float, truth: float) -> AnswerError:
    pair = answer.prediction_interval(flops) if target == "loss" else answer.interval("n_params_opt", flops)
    assert pair is not None
    estimate = answer.loss_opt(flops) if target == "loss" else answer.n_params_opt(flops)
    return AnswerError(
        table=name,
        target=target,
        error=math.log(estimate / truth),
        half_width=0.5 * math.log(pair[1] / pair[0]),
        is_held=pair[0] <= truth <= pair[1],
    )


def main() -> None:
    """Print the calibration."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--draws", type=int, default=200, help="resamples of each fit")
    chosen = parser.parse_args()
    config = dataclasses.replace(FitConfig(), n_bootstrap=chosen.draws, confidence=CONFIDENCE)
    errors: list[MethodError] = []
    cases: list[Case] = []
    for path in sorted(chosen.directory.glob("*.csv")):
        table = read(path)
        whole = fit(table, config).backtest
        errors += method_errors(path.stem, whole)
        if isinstance(whole, Backtest):
            cases += cases_of(path.stem, table, whole, config)
    if not cases:
        parser.error(f"{chosen.directory} has no table (*.csv) with at least four budgets: give another DIR")
    by_method = pd.DataFrame([dataclasses.asdict(error) for error in errors])
    print_methods(by_method)
    print("\nwith the committed constants")
    print_answer(error for case in cases for error in case.errors())
    print("\nby the disagreement of methods, with the narrowest prior that covers enough")
    print_disagreements(cases)
    if len({case.table for case in cases}) > 1:
        print("\nwith constants chosen without the table: medians of the prior")
        print_answer(leave_one_out(cases, by_method))


def _by_table(errors: pd.DataFrame) -> pd.Series:
    """Return the root mean square of each method's form errors in each table."""
    squares = errors.assign(square=errors["per_efold"] ** 2)
    return np.sqrt(squares.groupby(["method", "target", "table"])["square"].mean())


def print_methods(errors: pd.DataFrame) -> None:
    """Print each method's median form error per e-fold next to its constant."""
    print("form error per e-fold of reach: median over tables of each table's root mean square")
    for (method, target), values in _by_table(errors).groupby(level=["method", "target"]):
        without = [values.drop(index=label).median() for label in values.index] if len(values) > 1 else []
        spread = f"{min(without):.4f} to {max(without):.4f}" if without else "-"
        constant = METHOD_PRIORS.get(method, {}).get(target, math.nan)
        print(
            f"  {method:17s} {target:9s} {values.median():.4f}  without one table {spread}  "
            f"constant {constant:.4f}  tables {len(values)}"
        )
    for target in TARGETS:
        prior = ANSWER_PRIORS[target]
        print(f"  answer            {target:9s} constant {prior.median:.4f}, sd of ln s {prior.log_sd:.2f}")
    print(f"  disagreement of methods: {DISAGREEMENT}")


def print_answer(found: Iterable[AnswerError]) -> None:
    """Print coverage, errors and widths of the answer by table, and their means."""
    errors = list(found)
    farthest = math.exp(MAX_REACH)
    print(f"\nanswer at nominal {CONFIDENCE:.0%}, up to {farthest:.0f} times the largest budget fitted")
    for target in TARGETS:
        table = summarise([error for error in errors if error.target == target])
        print(f"\n{target}\n{table.round(3).to_string()}")
        print("mean over tables", table.mean().round(3).to_dict())


def summarise(errors: Sequence[AnswerError]) -> pd.DataFrame:
    """Return coverage, median error and median half-width by table."""
    frame = pd.DataFrame([dataclasses.asdict(error) for error in errors])
    return (
        frame.assign(size=frame["error"].abs())
        .groupby("table")
        .agg(
            targets=("size", "size"),
            coverage=("is_held", "mean"),
            median_error=("size", "median"),
            median_half_width=("half_width", "median"),
        )
    )


if __name__ == "__main__":
    main()
