"""Attempts at runs: claims, heartbeats and endings."""
