"""Fits scaling laws to points and derives compute-optimal N and D, with intervals."""

from sweep.fit.fit import DEFAULTS, METHODS, Fit, fit, published_fit, read_fit
from sweep.fit.laws.base import Law
from sweep.fit.predict import Prediction, Question, predict
from sweep.fit.refusals import Refusal
from sweep.fit.table.points import DEFAULT_COLUMNS, from_dataframe, read_table

__all__ = [
    "DEFAULTS",
    "DEFAULT_COLUMNS",
    "METHODS",
    "Fit",
    "Law",
    "Prediction",
    "Question",
    "Refusal",
    "fit",
    "from_dataframe",
    "predict",
    "published_fit",
    "read_fit",
    "read_table",
]
