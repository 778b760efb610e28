"""The store of a sweep: plans, claims, heartbeats, results and points, as files."""
