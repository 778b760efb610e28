"""Fit methods, one per module."""
