"""Benchmarks of the trainer for scripts/bench_train, and the coordinate check."""
