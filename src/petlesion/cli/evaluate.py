"""petlesion evaluate: masks against their references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from petlesion.cli.batch import Failures, try_all
from petlesion.cli.console import print_json, say
from petlesion.cli.masks import SEGMENTED, cohort_of, compare_all, mask_files
from petlesion.cli.tables import JSON_OPTION

if TYPE_CHECKING:
    from petlesion.cohort.layout import Cohort
    from petlesion.overlap import Overlap

_SWEPT_SIZES = (0, 5, 10, 20, 40, 80)


def evaluate(
    prediction: Path = typer.Argument(..., help="A predicted mask, or a folder of them."),
    reference: Path = typer.Argument(
        ..., help="Its reference, a folder with the same names in it, or the cohort that was predicted."
    ),
    output: Path = typer.Option(..., "-o", "--output", help="The metrics.csv to write."),
    report: Path | None = typer.Option(
        None, "--report", help="Write a page of all studies too, and of a cohort's each study's report."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Score masks: Dice, false-positive and false-negative volume of each study."""
    from dataclasses import asdict

    from petlesion.evaluation.metrics import write_metrics
    from petlesion.io.atomic import check_place

    check_place(output.parent)
    compared, failures = compare_all("evaluating", prediction, reference)
    rows = [overlap.metrics(case_id) for case_id, overlap in compared]
    write_metrics(output, rows)
    say(f"{output}: {len(rows)} studies")
    if report is not None:
        reports, unreported = _study_reports(report, prediction, reference, [name for name, _ in compared])
        failures = Failures(failures.total + unreported.total, failures.errors + unreported.errors)
        _write_page(report, f"Evaluation of {prediction.name}", compared, reports, failures)
    if as_json:
        print_json([asdict(row) for row in rows])
    failures.end()


def _study_reports(
    page: Path, prediction: Path, reference: Path, names: Sequence[str]
) -> tuple[dict[str, Path], Failures]:
    """Each study's report: the one beside its mask, else one that is written from the cohort's images."""
    predicted = mask_files(prediction)
    found = {name: predicted[name].with_name("report.html") for name in names}
    reports = {
        name: path for name, path in found.items() if predicted[name].name == SEGMENTED and path.is_file()
    }
    cohort = cohort_of(reference)
    if cohort is None:
        return reports, Failures(0)
    written = {
        name: page.parent / f"{page.stem}_reports" / f"{name}.html" for name in names if name not in reports
    }

    def work(name: str) -> None:
        if not _is_newer(written[name], predicted[name]):
            _write_report(written[name], cohort, name, predicted[name])
        reports[name] = written[name]

    return reports, try_all("reporting", ((name, name) for name in written), work)


def _is_newer(path: Path, than: Path) -> bool:
    return path.is_file() and path.stat().st_mtime_ns > than.stat().st_mtime_ns


def _write_report(path: Path, cohort: Cohort, case_id: str, prediction: Path) -> None:
    from petlesion.io.nifti import read_mask
    from petlesion.lesions import measure_lesions
    from petlesion.report.html import ReportFacts, write_report

    study, mask = cohort.read_study(case_id), read_mask(prediction)
    write_report(path, study, mask, measure_lesions(mask, study.pet), ReportFacts(created=_now()))


def _now() -> str:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _write_page(
    path: Path,
    title: str,
    compared: Sequence[tuple[str, Overlap]],
    reports: Mapping[str, Path],
    failures: Failures,
) -> None:
    from petlesion.evaluation.figures import median_sizes
    from petlesion.evaluation.summary import summarize
    from petlesion.report.cohort import CohortFacts, CohortRow, write_cohort_report

    rows = [
        CohortRow(case_id, overlap.metrics(case_id), report=reports.get(case_id))
        for case_id, overlap in compared
    ]
    swept = {
        size: [overlap.without_small(size).metrics(case_id) for case_id, overlap in compared]
        for size in _SWEPT_SIZES
    }
    facts = CohortFacts(
        created=_now(),
        title=title,
        summary=summarize(swept[0]),
        sweep=[(size, summarize(metrics)) for size, metrics in swept.items()],
        median_sizes=median_sizes([overlap for _, overlap in compared]),
    )
    write_cohort_report(path, rows, failures.reasons, facts)
