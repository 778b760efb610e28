"""The groups of verbs in `sweep --help`, and the examples in each verb's help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer.core

DAILY = "Every day"
STUDIES = "Studies"
MACHINE = "Machine, data and files"
OTHER = "Other verbs"
GROUPS = (DAILY, STUDIES, MACHINE, OTHER)


class GroupedVerbs(typer.core.TyperGroup):
    """The verbs in their groups, as plain text."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each group; a verb without `rich_help_panel` is among the others."""
        verbs = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        limit = formatter.width - 6 - max(map(len, verbs))
        for group in GROUPS:
            rows = [
                (name, verb.get_short_help_str(limit))
                for name, verb in verbs.items()
                if verb is not None and not verb.hidden and _group(verb) == group
            ]
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)


def _group(verb: Any) -> str:
    panel = getattr(verb, "rich_help_panel", None)
    return panel if panel in GROUPS else OTHER


def examples(lines: Sequence[str]) -> str:
    """Return commands as the last paragraph of a verb's help, one a line and not wrapped."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])
