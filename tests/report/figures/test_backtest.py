"""Backtest errors, compared with fit.json."""

from sweep.report.figures.backtest import backtest_marks


def test_marks_are_the_entries_of_fit_json(surfaces):
    marks = {mark.method: mark for mark in backtest_marks(surfaces)}
    entry = surfaces.fit.to_json()["backtest"]["methods"]["parametric"]["budgets"]
    assert marks["parametric"].loss_error.tolist() == [budget["loss_opt_error"] for budget in entry]
    assert marks["parametric"].n_params_error.tolist() == [budget["n_params_opt_error"] for budget in entry]
    assert (marks["parametric"].flops > marks["parametric"].largest_fitted_flops).all()
