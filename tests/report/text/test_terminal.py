"""Results on stdout: complete when piped, laid out and coloured on a terminal only."""

from __future__ import annotations

import io
import sys

import pytest
from rich.text import Text

from sweep.errors import InputError
from sweep.report.numbers import plain_table
from sweep.report.text.terminal import print_text, say

REASON = "the batch of [/unclosed] tokens is larger than the corpus " * 6


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def table():
    result = plain_table("run", "N", "reason")
    result.add_row("run-0", "1.234e5", REASON)
    return result


def test_piped_tables_have_a_line_for_each_row_neither_cropped_nor_padded(capsys):
    print_text(table())
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1] == f"run-0  1.234e5  {REASON}".rstrip()
    assert len(printed.out.splitlines()) == 2
    assert printed.err == ""


def test_strings_are_printed_verbatim(capsys):
    path = "/results/[bold]/" + "long/" * 60
    print_text(path)
    say("drawn")
    assert tuple(capsys.readouterr()) == (path + "\n", "drawn\n")


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
def test_colours_appear_on_a_terminal_unless_no_color_is_set(monkeypatch, no_color, coloured):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        monkeypatch.setattr("sys.stdout", stream)
        print_text(Text("failed", style="red"))
    assert ("\x1b[31m" in terminal.getvalue()) == coloured
    assert pipe.getvalue() == "failed\n"


def test_a_narrow_terminal_crops_no_number(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    wide = plain_table("run", "N", "D")
    wide.add_row("a-long-name-of-a-run", "1.234e5", "6.789e9")
    monkeypatch.setattr("sys.stdout", Terminal())
    print_text(wide)
    assert "6.789e9" in sys.stdout.getvalue()


def test_a_closed_stdout_is_named(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(InputError, match="standard output is closed"):
        print_text("a result")
