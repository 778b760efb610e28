"""The verbs about laws: fitting them, asking them, drawing them."""

from __future__ import annotations

from sweep.cli.arguments import (
    Arguments,
    AsJson,
    ConfigDir,
    directory_of,
    experiment_of,
    names_experiment,
    split_arguments,
    sweep_of_law,
)
from sweep.cli_output import show_fits
from sweep.errors import InputError
from sweep.report.text.terminal import console, print_json, say


def fit(arguments: Arguments = None, config_dir: ConfigDir = None, as_json: AsJson = False) -> None:
    """Fit scaling laws to a sweep, or to any table: points=FILE.csv."""
    from sweep.config.places import sweep_directory
    from sweep.machine.devices import cores
    from sweep.study import laws as analysis

    sweep_dir, overrides = split_arguments(arguments)
    experiment = experiment_of(sweep_dir, overrides, config_dir)
    if sweep_dir is not None and any(override.startswith("points=") for override in overrides):
        raise InputError(f"{sweep_dir} and points={experiment.points} are both given: fit one of them")
    if sweep_dir is None and experiment.points is not None:
        show_fits({None: analysis.fit_table(experiment)}, as_json)
        return
    directory = sweep_dir or sweep_directory(experiment)
    fits = analysis.fit_arms(
        directory, experiment.fit, reconcile=experiment.reconcile, n_processes=len(cores())
    )
    try:
        analysis.write_fits(directory, fits)
    finally:  # also where a sweep of somebody else's may only be read
        show_fits(fits, as_json)


def predict(arguments: Arguments = None, config_dir: ConfigDir = None, as_json: AsJson = False) -> None:
    """Say what to train at budgets nobody has paid for: flops=1e21 law=results/demo/fit.json, or a name."""
    from sweep.study import laws as analysis
    from sweep.study import run as study

    sweep_dir, overrides = split_arguments(arguments)
    sweep_dir = sweep_dir or sweep_of_law(overrides)
    experiment = experiment_of(sweep_dir, overrides, config_dir)
    fitted = analysis.read_law(experiment, sweep_dir or study.sweep_directory(experiment))
    is_own = experiment.law is None or sweep_dir is not None or names_experiment(overrides)
    predictions = analysis.predict(experiment, fitted, is_own=is_own)
    if as_json:
        documents = [prediction.to_json() for prediction in predictions]
        print_json(documents if isinstance(experiment.flops, tuple) else documents[0])
    else:
        from sweep.report.text.prediction import prediction_text

        console().print(prediction_text(predictions))


def report(arguments: Arguments = None, config_dir: ConfigDir = None) -> None:
    """Draw the figures of a sweep from its points and its fit."""
    from sweep.machine.devices import cores
    from sweep.study import laws as analysis

    for path in analysis.report(directory_of(arguments, config_dir), len(cores())):
        say(str(path))
