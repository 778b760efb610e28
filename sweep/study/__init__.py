"""Planning, running, fitting and reporting a sweep, as typed functions."""
