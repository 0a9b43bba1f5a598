"""petlesion summarize: averages over studies, as the paper defines them."""

from __future__ import annotations

from pathlib import Path

import typer

from petlesion.cli.console import print_json
from petlesion.cli.tables import CASES_OPTION, FORMAT_OPTION, JSON_OPTION, show_table
from petlesion.errors import UsageError

_ALL = "all"


def summarize(
    metrics: list[Path] = typer.Argument(..., help="One metrics.csv or more, of different studies."),
    by: str | None = typer.Option(None, "--by", help="source: an average for each source, and for all."),
    cases: Path | None = CASES_OPTION,
    style: str = FORMAT_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Average Dice and false-negative volume over the studies with lesions, false-positive volume over all.

    Beside each average stands its 95 % interval from 2,000 bootstrap resamples.
    """
    from petlesion.cli.masks import open_cohort, patients_of
    from petlesion.evaluation.metrics import check_unique, read_metrics
    from petlesion.evaluation.summary import summarize as summarize_rows
    from petlesion.evaluation.summary import summarize_by
    from petlesion.evaluation.tables import summary_table

    if by not in (None, "source"):
        raise UsageError(f"--by {by} is not known; it can only be source")
    if by is not None and cases is None:
        raise UsageError("--by source needs --cases, the cases.csv that says where each study is from")
    rows = [row for path in metrics for row in read_metrics(path)]
    check_unique(" and ".join(map(str, metrics)), (row.case_id for row in rows))
    patients = patients_of(cases)
    whole = summarize_rows(rows, patients)
    parts = {}
    if by is not None and cases is not None:
        sources = {case.case_id: case.source for case in open_cohort(cases).cases}
        parts = summarize_by(rows, sources, patients)
    if as_json:
        data = whole.as_json()
        if by is not None:
            data["by_source"] = {name: part.as_json() for name, part in parts.items()}
        print_json(data)
        return
    show_table(summary_table({**parts, _ALL: whole}, "source" if by else "studies of"), style)
