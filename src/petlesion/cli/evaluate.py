"""petlesion evaluate: masks against their references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from petlesion.cli.console import print_json, say
from petlesion.cli.tables import JSON_OPTION

if TYPE_CHECKING:
    from petlesion.evaluation.metrics import Overlap

_SWEPT_SIZES = (0, 5, 10, 20, 40, 80)


def evaluate(
    prediction: Path = typer.Argument(..., help="A predicted mask, or a folder of them."),
    reference: Path = typer.Argument(
        ..., help="Its reference, a folder with the same names in it, or the cohort that was predicted."
    ),
    output: Path = typer.Option(..., "-o", "--output", help="The metrics.csv to write."),
    report: Path | None = typer.Option(None, "--report", help="Write a page of all studies, cohort.html."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Score masks: Dice, false-positive and false-negative volume of each study."""
    from dataclasses import asdict

    from petlesion.cli.masks import compare_all
    from petlesion.evaluation.metrics import write_metrics
    from petlesion.io.atomic import check_place

    check_place(output.parent)
    compared, failures = compare_all("evaluating", prediction, reference)
    rows = [overlap.metrics(case_id) for case_id, overlap in compared]
    write_metrics(output, rows)
    say(f"{output}: {len(rows)} studies")
    if report is not None:
        _write_page(report, prediction, compared, failures.reasons)
    if as_json:
        print_json([asdict(row) for row in rows])
    failures.end()


def _write_page(
    path: Path,
    prediction: Path,
    compared: Sequence[tuple[str, Overlap]],
    failures: Sequence[tuple[str, str]],
) -> None:
    from datetime import datetime, timezone

    from petlesion.evaluation.figures import median_sizes
    from petlesion.evaluation.summary import summarize
    from petlesion.report.cohort import CohortFacts, CohortRow, write_cohort_report

    rows = [CohortRow(case_id, overlap.metrics(case_id)) for case_id, overlap in compared]
    swept = {
        size: [overlap.without_small(size).metrics(case_id) for case_id, overlap in compared]
        for size in _SWEPT_SIZES
    }
    facts = CohortFacts(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        title=f"Evaluation of {prediction.name}",
        summary=summarize(swept[0]),
        sweep=[(size, summarize(metrics)) for size, metrics in swept.items()],
        median_sizes=median_sizes([overlap for _, overlap in compared]),
    )
    write_cohort_report(path, rows, failures, facts)
