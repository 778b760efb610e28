"""Scaling laws fitted to points, and the compute-optimal N and D they predict, with intervals."""

from sweep.config import FitConfig
from sweep.fit.fit import METHODS, Fit, Method, fit, method_names, published_fit, read_fit
from sweep.fit.laws.base import Law
from sweep.fit.predict import Question, predict
from sweep.fit.prediction import Prediction
from sweep.fit.refusals import Refusal
from sweep.fit.table.columns import DEFAULT_COLUMNS
from sweep.fit.table.optima import OptimaLaw, optima_law
from sweep.fit.table.points import Selection, Table, from_dataframe, read_table

DEFAULTS = FitConfig()
"""The options that `fit` uses without a config; change them with `dataclasses.replace`."""

__all__ = [
    "DEFAULTS",
    "DEFAULT_COLUMNS",
    "METHODS",
    "Fit",
    "Law",
    "Method",
    "OptimaLaw",
    "Prediction",
    "Question",
    "Refusal",
    "Selection",
    "Table",
    "fit",
    "from_dataframe",
    "method_names",
    "optima_law",
    "predict",
    "published_fit",
    "read_fit",
    "read_table",
]
