"""Experiment trackers: copies of a run's metrics in external services; their failures never stop a run."""
