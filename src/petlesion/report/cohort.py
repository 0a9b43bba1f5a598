"""The page of a batch or an evaluation: one row per study, plots, and what failed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from petlesion._version import __version__
from petlesion.evaluation.summary import Summary
from petlesion.io.atomic import write_text
from petlesion.overlap import StudyMetrics
from petlesion.report.page import render_page
from petlesion.report.plots import (
    HEIGHT,
    WIDTH,
    Plot,
    bland_altman,
    dice_against_volume,
    size_histogram,
    sweep_plot,
)

_STYLES = ("page.css", "cohort.css")
_MODULES = ("table.js", "cohort.js")
_HEAD_CHARACTERS = 200_000
_THUMBNAIL = re.compile(r'<link rel="icon" href="(data:image/png;base64,[A-Za-z0-9+/=]+)">')


@dataclass(frozen=True)
class CohortRow:
    """One study. Volumes are in mL.

    `metrics` are there where the study was compared with a reference; a study that was only segmented has
    its `volume_ml` (metabolic tumour volume) and number of `lesions` instead. `report` is the study's
    report, which also gives the thumbnail. `note` is one sentence for the reader, such as a warning.
    """

    case_id: str
    metrics: StudyMetrics | None = None
    volume_ml: float | None = None
    lesions: int | None = None
    report: Path | None = None
    note: str | None = None


@dataclass(frozen=True)
class CohortFacts:
    """What the page tells beside its rows.

    `created` is the time in ISO 8601. `summary` holds the averages; `sweep` those for each smallest size in
    voxels (Table 3); `median_sizes` the studies' median component sizes, reference and prediction (Figure 1).
    """

    created: str
    title: str
    version: str = __version__
    summary: Summary | None = None
    sweep: Sequence[tuple[int, Summary]] = ()
    median_sizes: tuple[Sequence[float], Sequence[float]] = field(default=((), ()))


def write_cohort_report(
    path: str | Path, rows: Sequence[CohortRow], failures: Sequence[tuple[str, str]], facts: CohortFacts
) -> None:
    """Write the page of several studies as one HTML file that needs no network.

    `failures` are the names of the studies that failed, each with its reason. Links lead from the page's
    folder to the reports. The same input gives the same file.
    """
    path = Path(path)
    page = render_page(
        "cohort.html.j2",
        styles=_STYLES,
        modules=_MODULES,
        title=facts.title,
        icon="data:,",
        facts=facts,
        rows=[_shown(path, row) for row in rows],
        compared=any(row.metrics is not None for row in rows),
        failures=failures,
        plots=_plots(rows, facts),
        width=WIDTH,
        height=HEIGHT,
    )
    write_text(path, page)


@dataclass(frozen=True)
class _ShownRow:
    row: CohortRow
    link: str | None
    thumbnail: str | None
    volume_ml: float | None
    lesions: int | None


def _shown(page: Path, row: CohortRow) -> _ShownRow:
    metrics = row.metrics
    return _ShownRow(
        row=row,
        link=None if row.report is None else _relative_link(page, row.report),
        thumbnail=None if row.report is None else read_thumbnail(row.report),
        volume_ml=row.volume_ml if metrics is None else metrics.predicted_volume_ml,
        lesions=row.lesions if metrics is None else metrics.predicted_components,
    )


def read_thumbnail(report: Path) -> str | None:
    """The small picture that a report carries as its icon, as a data URL; None where there is none."""
    try:
        with report.open(encoding="utf-8") as file:
            head = file.read(_HEAD_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return None
    found = _THUMBNAIL.search(head)
    return found[1] if found else None


def _relative_link(page: Path, target: Path) -> str:
    steps = os.path.relpath(target.absolute(), page.absolute().parent)
    # A colon in the first step would read as a scheme.
    return "./" + quote(Path(steps).as_posix())


def _plots(rows: Sequence[CohortRow], facts: CohortFacts) -> list[Plot]:
    metrics = [(index, row.metrics) for index, row in enumerate(rows) if row.metrics is not None]
    drawn = (
        dice_against_volume(metrics),
        bland_altman(metrics),
        sweep_plot(facts.sweep),
        size_histogram(*facts.median_sizes),
    )
    return [plot for plot in drawn if plot is not None]
