"""Figures, one per module: the numbers first, then the drawing."""
