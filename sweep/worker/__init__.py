"""The worker process: claims a run, trains it, commits its point."""
