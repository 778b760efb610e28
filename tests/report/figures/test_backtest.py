"""Backtest errors, compared with fit.json."""

from sweep.report.series.backtest import backtest_marks


def test_marks_are_the_entries_of_fit_json(surfaces):
    marks = {mark.method: mark for mark in backtest_marks(surfaces)}
    cuts = surfaces.fit.to_json()["backtest"]["cuts"]
    entries = [budget for cut in cuts for budget in cut["methods"]["parametric"]["budgets"]]
    assert len(entries) == sum(range(1, len(cuts) + 1))
    assert marks["parametric"].loss_error.tolist() == [entry["loss_opt_error"] for entry in entries]
    assert marks["parametric"].n_params_error.tolist() == [entry["n_params_opt_error"] for entry in entries]
    assert (marks["parametric"].factor > 1).all()
