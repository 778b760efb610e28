"""A sweep in notebooks and scripts: `open_sweep`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config import ExperimentConfig, FitConfig
from sweep.errors import InputError
from sweep.fit import Fit, Prediction, Refusal, read_fit
from sweep.fit.prediction import AnswerPrediction
from sweep.store.points import column_values
from sweep.store.run_store import RunStore, StoredPoints
from sweep.store.status import SweepStatus
from sweep.store.validations import Validation, read_validations
from sweep.study import laws
from sweep.study.predictions import predict
from sweep.study.validate import largest_planned_budget, validate

if TYPE_CHECKING:  # slow to import, and most calls need neither
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep on disk: its points, state, laws and figures."""

    directory: Path

    @property
    def experiment(self) -> ExperimentConfig:
        """The experiment planned last."""
        return RunStore(self.directory).latest_experiment()

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms with finished runs; empty for a sweep without arms."""
        return tuple(dict.fromkeys(point.arm for point in self._stored().points if point.arm is not None))

    def points(self) -> pd.DataFrame:
        """Return finished runs, one a row, with the columns of points.csv; an unknown value is missing."""
        import pandas as pd

        return pd.DataFrame(column_values(self._stored().points))

    def status(self) -> SweepStatus:
        """Return the state of every run."""
        return RunStore(self.directory).status()

    def fit(self, config: FitConfig | None = None, *, arm: str | None = None, reconcile: bool = False) -> Fit:
        """Fit the sweep, by default with its own `fit` settings, and write fit.json as `sweep fit` does.

        Every arm is fitted, and the law of `arm` returned. Raises InputError for an arm that the sweep does
        not have, and as `fit_arms`.
        """
        fits = laws.fit_sweep(self.directory, config or self.experiment.fit, reconcile=reconcile)
        return laws.choose_arm(fits, arm)

    def predict(
        self, *budgets: float, arm: str | None = None, inference_tokens: float | None = None
    ) -> tuple[Prediction, ...]:
        """Return the prediction at each budget, in training FLOPs, from the fit written last.

        Raises InputError when there is no fit yet.
        """
        fitted = read_fit(laws.fit_file(laws.arm_directory(self.directory, arm)))
        return predict(
            fitted,
            budgets,
            family=self.experiment,
            trained=self._stored().points,
            inference_tokens=inference_tokens,
        )

    def answer(self, flops: float, *, arm: str | None = None) -> AnswerPrediction:
        """Return the answer at one budget: N, D and loss with intervals.

        Raises InputError when there is no fit yet, and with the reason where the answer is refused.
        """
        (prediction,) = self.predict(flops, arm=arm)
        found = prediction.answer
        if isinstance(found, Refusal):
            raise InputError(f"there is no answer: {found.reason}")
        if found is None:
            raise InputError(f"{self.directory}/fit.json is of an earlier version: fit again")
        return found

    def figure(self, name: str, *, arm: str | None = None) -> Figure:
        """Return a figure of the fit written last, by its name or the start of it, such as "isoflop".

        Raises InputError for an unknown name, and when there is no fit yet or nothing to draw.
        """
        from sweep.report.figures.draw import FIGURES

        stem = _only_match(name, tuple(FIGURES))
        from sweep.study.report import arm_results

        fitted = read_fit(laws.fit_file(laws.arm_directory(self.directory, arm)))
        results = arm_results(self.directory, self._stored(), arm, fitted)
        numbers: Any = FIGURES[stem].numbers(results)
        if not numbers:
            raise InputError(
                f"this fit has no numbers for the figure {stem}: choose one that sweep report draws"
            )
        return FIGURES[stem].draw(numbers)

    def report(self) -> list[Path]:
        """Write report.html and the figures, and return their paths. Raises InputError without a run."""
        from sweep.study.report import write_report

        return write_report(self.directory)

    @property
    def validations(self) -> tuple[Validation, ...]:
        """Finished validations, predicted next to measured."""
        return tuple(read_validations(self.directory))

    def validate(self, flops: float | None = None, *, arm: str | None = None) -> Validation | None:
        """Register the answer at a budget, train it, and return predicted next to measured.

        The default is four times the largest planned budget. A finished validation is only read. Returns None
        while runs are left to train. Raises InputError and SafetyError as `sweep.study.validate.validate`.
        """
        budget = flops or laws.VALIDATED * largest_planned_budget(self.directory)
        return validate(self.directory, budget, arm=arm).validation

    def _stored(self) -> StoredPoints:
        return RunStore(self.directory).points()


def open_sweep(directory: str | Path) -> Sweep:
    """Return the sweep in a directory. Raises InputError when there is none."""
    RunStore(Path(directory)).latest_experiment()
    return Sweep(Path(directory))


def _only_match(name: str, names: tuple[str, ...]) -> str:
    """Return the one of `names` that is `name` or starts with it. Raises InputError for none or several."""
    found = [name] if name in names else [one for one in names if one.startswith(name)]
    if len(found) != 1:
        raise InputError(f"{name!r} is not the name of one figure: choose from {', '.join(names)}")
    return found[0]
