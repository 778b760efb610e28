"""Packages that a page does without, because they are slow to import."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from sweep.report.html.page import page_html
from sweep.study import report
from tests.report.figures.planted import planted_sweep
from tests.report.html.conftest import page_of

page_html(page_of(planted_sweep()))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"matplotlib", "pandas", "torch"}))
"""


def test_building_a_page_imports_no_drawing_package():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
