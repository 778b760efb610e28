"""Figures of the fault table: recorded by tests, printed at the end of the session."""

import pytest


@pytest.fixture
def measured(record_property):
    """Record one figure of the table, as in measured("kill -9 of workers", "50 kills, 0 lost")."""
    return lambda fault, figure: record_property("fault", f"{fault}: {figure}")


def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", [])
    figures = [value for report in passed for name, value in report.user_properties if name == "fault"]
    if figures:
        terminalreporter.section("faults, as measured")
        for figure in sorted(figures):
            terminalreporter.write_line(figure)
