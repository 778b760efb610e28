"""Fitted scaling laws and their predictions."""
