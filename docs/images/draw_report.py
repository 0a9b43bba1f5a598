"""Draw docs/images/report-*: pages of simulated studies in headless Chromium.

    python docs/images/draw_report.py

The masks are simulated truth in the study's report, and a fixed threshold in the cohort's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from petlesion.evaluation.figures import median_sizes
from petlesion.evaluation.summary import summarize
from petlesion.lesions import measure_lesions
from petlesion.overlap import Overlap, StudyMetrics, overlap_of
from petlesion.report.cohort import CohortFacts, CohortRow, write_cohort_report
from petlesion.report.html import ReportFacts, write_report
from petlesion.report.projections import write_gif, write_png
from petlesion.simulation.study import SimulationSettings, simulate

HERE = Path(__file__).parent
SEED = 22
COHORT_SEEDS = range(40, 64)
COARSE = SimulationSettings(spacing_mm=(4.0, 4.0, 4.0), slices=260)
THRESHOLD_SUV = 4.0
SIZES = (0, 2, 5, 10, 20, 40)
CREATED = "2026-01-01T12:00:00+00:00"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]


def study_report(folder: Path) -> Path:
    """The report of one study, and its projections as pictures."""
    study = simulate(SEED, SimulationSettings(slices=326))
    page = folder / "study.html"
    facts = ReportFacts(
        created=CREATED,
        model={"Model": "none: the simulation's truth"},
        conversion={"Source": "simulated PET/CT"},
    )
    table = measure_lesions(study.reference, study.pet)
    projections = write_report(page, study, study.reference, table, facts)
    write_png(HERE / "report-projections.png", projections)
    write_gif(HERE / "report-turning.gif", projections)
    return page


def cohort_report(folder: Path) -> Path:
    """The page of several studies, each with its report."""
    rows, overlaps = [], []
    for seed in COHORT_SEEDS:
        study = simulate(seed, COARSE)
        mask = study.pet.with_array(study.pet.array > THRESHOLD_SUV)
        overlap = overlap_of(mask, study.reference)
        report = folder / f"{study.name}.html"
        write_report(report, study, mask, measure_lesions(mask, study.pet), ReportFacts(created=CREATED))
        rows.append(CohortRow(study.name, overlap.metrics(study.name), report=report))
        overlaps.append(overlap)
    facts = CohortFacts(
        created=CREATED,
        title=f"{len(rows)} simulated studies, every voxel above SUV {THRESHOLD_SUV:g}",
        summary=summarize([row.metrics for row in rows]),
        sweep=[(size, summarize(without_small(rows, overlaps, size))) for size in SIZES],
        median_sizes=median_sizes(overlaps),
    )
    page = folder / "cohort.html"
    write_cohort_report(page, rows, [], facts)
    return page


def without_small(rows: list[CohortRow], overlaps: list[Overlap], size: int) -> list[StudyMetrics]:
    """The metrics after small components were removed."""
    return [
        overlap.without_small(size).metrics(row.case_id) for row, overlap in zip(rows, overlaps, strict=True)
    ]


def save(page: Page, name: str) -> None:
    """What the browser shows, as a PNG beside this file."""
    page.wait_for_timeout(300)
    page.screenshot(path=HERE / name)


def main() -> None:
    """Draw all pictures."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        study, cohort = study_report(Path(name)), cohort_report(Path(name))
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for scheme, width, height in (("light", 1280, 720), ("dark", 1920, 1080)):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(study.as_uri())
            page.wait_for_selector("body[data-ready]")
            page.keyboard.press("n")
            save(page, f"report-{scheme}.png")
        page = browser.new_page(viewport={"width": 1280, "height": 1500}, color_scheme="light")
        page.goto(cohort.as_uri())
        save(page, "report-cohort.png")
        browser.close()


if __name__ == "__main__":
    main()
