"""Launchers: each starts the worker command somewhere and supervises it."""
