"""petlesion experiment compare and figure: Table 2 and Figure 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petlesion.cli.console import print_json, say
from petlesion.cli.tables import CASES_OPTION, FORMAT_OPTION, JSON_OPTION, show_compared

if TYPE_CHECKING:
    from petlesion.evaluation.compare import ScoredRun


def compare(
    runs: list[Path] = typer.Argument(
        ..., help="Folders of runs, with cross_validation/metrics.csv, test/metrics.csv or both."
    ),
    cases: Path | None = CASES_OPTION,
    style: str = FORMAT_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Put runs side by side as in Table 2, with the paper's rows, and compare each with the first.

    The differences have 95 % intervals of a paired bootstrap and the p of Wilcoxon's signed-rank test.
    """
    from petlesion.cli.masks import patients_of
    from petlesion.evaluation.compare import compare_runs, read_runs
    from petlesion.evaluation.tables import experiments_table

    patients = patients_of(cases)
    first, *others = scored = read_runs(runs)
    differences = [difference for other in others for difference in compare_runs(first, other, patients)]
    if as_json:
        found = [difference.as_json() for difference in differences]
        print_json({"runs": [_run_as_json(run, patients) for run in scored], "differences": found})
        return
    table = experiments_table(scored, patients)
    show_compared(table, [str(row[0]) for row in table.rows], differences, style)


def figure(
    prediction: Path = typer.Argument(..., help="Folder of predicted masks, those of cross-validation."),
    reference: Path = typer.Argument(..., help="A folder with the same names in it, or the cohort."),
    output: Path = typer.Option(..., "-o", "--output", help="The .png or .svg to write."),
) -> None:
    """Draw Figure 1: the studies' median component sizes, reference beside prediction."""
    from petlesion.cli.masks import compare_all
    from petlesion.evaluation.figures import check_ending, median_sizes, size_histogram, write_figure

    check_ending(output)
    compared, failures = compare_all("measuring", prediction, reference)
    write_figure(output, size_histogram(*median_sizes([overlap for _, overlap in compared])))
    say(f"{output}: {len(compared)} studies")
    failures.end()


def _run_as_json(run: ScoredRun, patients: dict[str, str] | None) -> dict[str, Any]:
    from dataclasses import asdict

    from petlesion.evaluation.tables import published_row

    published = published_row(run.experiment)
    return {
        "name": run.name,
        "experiment": run.experiment.as_dict(),
        **{scoring: summary.as_json() for scoring, summary in run.summaries(patients).items()},
        "paper": asdict(published) if published else None,
    }
