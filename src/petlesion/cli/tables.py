"""How commands show a table: on the terminal, or as CSV, Markdown or LaTeX on standard output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from petlesion.cli.console import print_table
from petlesion.errors import UsageError

if TYPE_CHECKING:
    from petlesion.evaluation.compare import Difference
    from petlesion.evaluation.tables import Table

STYLES = ("terminal", "csv", "markdown", "latex")


def _check_style(style: str) -> str:
    """Refuse an unknown format before the work, not after it."""
    if style not in STYLES:
        raise UsageError(f"there is no table format {style!r}; choose one of {', '.join(STYLES)}")
    return style


FORMAT_OPTION = typer.Option(
    "terminal", "--format", help="terminal, csv, markdown or latex.", callback=_check_style
)
JSON_OPTION = typer.Option(False, "--json", help="Print JSON in place of a table.")
CASES_OPTION = typer.Option(
    None, "--cases", help="The cohort's cases.csv, or its folder: intervals then resample whole patients."
)


def show_table(table: Table, style: str) -> None:
    """Print a table in one of the styles."""
    from petlesion.evaluation.tables import render

    if style == "terminal":
        print_table(table.columns, table.as_text())
        for note in table.notes:
            print(note)
    else:
        sys.stdout.write(render(table, style))


def show_compared(table: Table, names: Sequence[str], differences: Sequence[Difference], style: str) -> None:
    """Print a table and, below it, its rows' differences; in CSV, which holds one table, beside them.

    `names` are the rows' names in the differences.
    """
    from petlesion.evaluation.tables import differences_table, with_differences

    if style == "csv":
        show_table(with_differences(table, names, differences), style)
        return
    show_table(table, style)
    if differences:
        print()
        show_table(differences_table(differences), style)
