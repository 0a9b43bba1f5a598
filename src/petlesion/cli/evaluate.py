"""petlesion evaluate: masks against their references."""

from __future__ import annotations

from pathlib import Path

import typer

from petlesion.cli.console import print_json, say
from petlesion.cli.tables import JSON_OPTION


def evaluate(
    prediction: Path = typer.Argument(..., help="A predicted mask, or a folder of them."),
    reference: Path = typer.Argument(
        ..., help="Its reference, a folder with the same names in it, or the cohort that was predicted."
    ),
    output: Path = typer.Option(..., "-o", "--output", help="The metrics.csv to write."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Score masks: Dice, false-positive and false-negative volume of each study."""
    from dataclasses import asdict

    from petlesion.cli.masks import compare_all
    from petlesion.evaluation.metrics import write_metrics

    compared, failed = compare_all("evaluating", prediction, reference)
    rows = [overlap.metrics(case_id) for case_id, overlap in compared]
    write_metrics(output, rows)
    say(f"{output}: {len(rows)} studies")
    if as_json:
        print_json([asdict(row) for row in rows])
    if failed:
        raise failed
