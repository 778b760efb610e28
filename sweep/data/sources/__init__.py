"""Corpus sources, one per module."""
