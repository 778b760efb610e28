"""Comparison of two arms: the factor of compute by which one is better than the other."""
