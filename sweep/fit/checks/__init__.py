"""Checks of a fit: agreement between methods, backtests, reconciliation, hyperparameter gaps."""
