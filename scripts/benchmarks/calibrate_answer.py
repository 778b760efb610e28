"""Calibrates the answer of a fit on published sweeps.

Usage: python -m scripts.benchmarks.calibrate_answer DIR

DIR holds tables (CSV) with n_params, n_tokens, flops_budget and loss. Each table is cut at every budget that
leaves at least three, every method is fitted to the smaller budgets, and its predictions are compared with
the measured optimum of the larger ones. Prints the median form error of each method per e-fold of reach, the
constants of `sweep.fit.answer`, and the coverage and errors of the answer with these constants, by table. A
median over tables leaves the influence of a single one small; `without` repeats it leaving each table out.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sweep.config import FitConfig
from sweep.fit import Refusal, fit
from sweep.fit.answer import ANSWER_PRIORS, METHOD_PRIORS, TARGETS, AnswerLaw
from sweep.fit.checks.backtest import Backtest, BudgetError, MethodBacktest, Target

CONFIDENCE = 0.9
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


def answer_errors(
    name: str, table: pd.DataFrame, whole: Backtest, config: FitConfig
) -> Iterator[AnswerError]:
    """Yield the errors of the answer at every budget beyond every cut."""
    budgets = sorted(table["flops_budget"].unique())
    truths = {entry.flops_budget: entry for cut in whole.cuts for entry in _entries(cut.methods)}
    for n_fitted in range(3, len(budgets)):
        answer = fit(table[table["flops_budget"].isin(budgets[:n_fitted])], config).answer
        if not isinstance(answer, AnswerLaw):
            continue
        for budget in budgets[n_fitted:]:
            truth = truths.get(budget)
            is_near = math.log(budget / budgets[n_fitted - 1]) <= MAX_REACH
            if truth is None or truth.true_loss_opt is None or truth.true_n_params_opt is None or not is_near:
                continue
            yield _answer_error(name, "loss", answer, budget, truth.true_loss_opt)
            yield _answer_error(name, "n_params", answer, budget, truth.true_n_params_opt)


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
    by_method: list[MethodError] = []
    by_answer: list[AnswerError] = []
    for path in sorted(chosen.directory.glob("*.csv")):
        table = read(path)
        whole = fit(table, config).backtest
        by_method += method_errors(path.stem, whole)
        if isinstance(whole, Backtest):
            by_answer += answer_errors(path.stem, table, whole, config)
    print_methods(pd.DataFrame([dataclasses.asdict(error) for error in by_method]))
    print_answer(pd.DataFrame([dataclasses.asdict(error) for error in by_answer]))


def print_methods(errors: pd.DataFrame) -> None:
    """Print each method's median form error per e-fold next to its constant."""
    print("form error per e-fold of reach: median over tables of each table's root mean square")
    squares = errors.assign(square=errors["per_efold"] ** 2)
    by_table = np.sqrt(squares.groupby(["method", "target", "table"])["square"].mean())
    for (method, target), values in by_table.groupby(level=["method", "target"]):
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


def print_answer(errors: pd.DataFrame) -> None:
    """Print coverage, errors and widths of the answer by table, and their means."""
    farthest = math.exp(MAX_REACH)
    print(f"\nanswer at nominal {CONFIDENCE:.0%}, up to {farthest:.0f} times the largest budget fitted")
    for target in TARGETS:
        of_target = errors[errors["target"] == target].assign(size=errors["error"].abs())
        table = of_target.groupby("table").agg(
            targets=("size", "size"),
            coverage=("is_held", "mean"),
            median_error=("size", "median"),
            median_half_width=("half_width", "median"),
        )
        print(f"\n{target}\n{table.round(3).to_string()}")
        print("mean over tables", table.mean().round(3).to_dict())


if __name__ == "__main__":
    main()
