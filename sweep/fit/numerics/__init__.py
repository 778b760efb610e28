"""Minimisation, resampling and interval estimation."""
