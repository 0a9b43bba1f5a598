"""petlesion sweep: what removing small components does to the scores (Table 3)."""

from __future__ import annotations

from pathlib import Path

import typer

from petlesion.cli.console import print_json
from petlesion.cli.tables import CASES_OPTION, FORMAT_OPTION, JSON_OPTION, show_table
from petlesion.errors import UsageError


def sweep(
    prediction: Path = typer.Argument(..., help="A predicted mask, or a folder of them."),
    reference: Path = typer.Argument(
        ..., help="Its reference, a folder with the same names in it, or the cohort that was predicted."
    ),
    min_size: str = typer.Option("0,5,10,20,40,80", "--min-size", help="Sizes in voxels."),
    cases: Path | None = CASES_OPTION,
    style: str = FORMAT_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Average the scores without components of fewer than so many voxels, for each size.

    Choose the size in cross-validation, never on a test set.
    """
    from petlesion.cli.masks import compare_all, patients_of
    from petlesion.evaluation.summary import summarize
    from petlesion.evaluation.tables import sweep_table

    sizes = parse_sizes(min_size)
    patients = patients_of(cases)
    compared, failures = compare_all("evaluating", prediction, reference)
    summaries = {}
    for size in sizes:
        rows = [overlap.without_small(size).metrics(case_id) for case_id, overlap in compared]
        summaries[size] = summarize(rows, patients)
    if as_json:
        print_json([{"min_size": size, **summary.as_json()} for size, summary in summaries.items()])
    else:
        show_table(sweep_table(summaries), style)
    failures.end()


def parse_sizes(text: str) -> list[int]:
    """The sizes of a list such as 0,5,10; raises UsageError for anything else."""
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 0 or len(set(sizes)) < len(sizes):
        raise UsageError(f"{text!r} is no list of sizes; write different whole numbers such as 0,5,10")
    return sizes
