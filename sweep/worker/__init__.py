"""The worker process: claim a run, train it, commit its point."""
