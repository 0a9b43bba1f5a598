"""How commands show a table: on the terminal, or as CSV, Markdown or LaTeX on standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from petlesion.cli.console import print_table

if TYPE_CHECKING:
    from petlesion.evaluation.tables import Table

FORMAT_OPTION = typer.Option("terminal", "--format", help="terminal, csv, markdown or latex.")
JSON_OPTION = typer.Option(False, "--json", help="Print JSON in place of a table.")
CASES_OPTION = typer.Option(
    None, "--cases", help="The cohort's cases.csv, or its folder: intervals then resample whole patients."
)


def show_table(table: Table, style: str) -> None:
    """Print a table in the style asked for; raises UsageError for an unknown one."""
    from petlesion.evaluation.tables import render

    if style == "terminal":
        print_table(table.columns, table.as_text())
        for note in table.notes:
            print(note)
    else:
        sys.stdout.write(render(table, style))
