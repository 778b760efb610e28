"""Refits of the reference sweeps in results/reference, and the tables and figures made from them."""
