"""Training of one run on several devices."""
