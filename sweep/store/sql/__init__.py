"""The SQL copy of the points."""
