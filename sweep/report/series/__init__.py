"""Numbers of the figures and of the page, computed from the results of a sweep."""
