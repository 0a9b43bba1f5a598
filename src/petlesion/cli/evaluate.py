"""petlesion evaluate: masks against their references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from petlesion.cli.batch import run_batch
from petlesion.cli.console import print_json, say
from petlesion.cli.tables import JSON_OPTION

if TYPE_CHECKING:
    from petlesion.cli.masks import MaskPair
    from petlesion.evaluation.metrics import StudyMetrics


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

    from petlesion.cli.masks import mask_pairs
    from petlesion.evaluation.metrics import write_metrics

    rows: list[StudyMetrics] = []

    def work(pair: MaskPair) -> None:
        rows.append(pair.overlap().metrics(pair.case_id))

    pairs = [(pair.case_id, pair) for pair in mask_pairs(prediction, reference)]
    failed: typer.Exit | None = None
    try:
        run_batch("evaluating", pairs, work)
    except typer.Exit as some_failed:
        failed = some_failed
    if rows:
        write_metrics(output, rows)
        say(f"{output}: {len(rows)} of {len(pairs)} studies")
    if as_json and rows:
        print_json([asdict(row) for row in rows])
    if failed:
        raise failed
