"""The page of several studies, as a file and in a real browser."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petlesion.evaluation.summary import summarize
from petlesion.overlap import StudyMetrics
from petlesion.report.cohort import CohortFacts, CohortRow, read_thumbnail, write_cohort_report
from tests.report.conftest import CREATED

OpenPage = Callable[..., Any]
HOSTILE = "<img src=x onerror=\"console.log('in')\">"


def metrics(case_id: str, reference_ml: float, predicted_ml: float, dice: float | None) -> StudyMetrics:
    return StudyMetrics(case_id, reference_ml, predicted_ml, dice, 0.5, 0.25, int(reference_ml > 0), 2)


METRICS = (
    metrics("first", 12.0, 10.0, 0.83),
    metrics(HOSTILE, 200.0, 230.0, 0.91),
    metrics("third", 0.0, 0.0, None),
)


@pytest.fixture
def cohort_page(tmp_path: Path, phantom_report: Path) -> Path:
    folder = tmp_path / "in: here #1"
    folder.mkdir()
    report = Path(shutil.copy(phantom_report, folder))
    rows = [CohortRow(row.case_id, row, report=report if row is METRICS[0] else None) for row in METRICS]
    summary = summarize(METRICS)
    facts = CohortFacts(
        created=CREATED,
        title="Test set",
        summary=summary,
        sweep=[(size, summary) for size in (0, 5, 10)],
        median_sizes=([10.0, 40.0], [12.0, 30.0, 90.0]),
    )
    path = tmp_path / "cohort.html"
    write_cohort_report(path, rows, [("broken", f"no dose; {HOSTILE}")], facts)
    return path


@pytest.fixture
def page(open_page: OpenPage, cohort_page: Path) -> Any:
    page = open_page(cohort_page)
    page.wait_for_selector("body[data-ready]")
    return page


def test_rows_averages_failures_and_plots_are_shown(page: Any) -> None:
    assert page.locator("#studies tbody tr").count() == 3
    assert page.inner_text("#study-0").split() == ["first", "0.830", "0.50", "0.25", "10.0", "12.0", "2"]
    assert page.inner_text("#study-2 td:nth-child(3)") == "–"
    assert page.inner_text(".failures li") == f"broken: no dose; {HOSTILE}"
    assert "0.870" in page.inner_text(".totals")
    titles = page.locator(".plot figcaption").all_inner_texts()
    assert [title.split(":")[0] for title in titles] == [
        "Dice against lesion volume",
        "Metabolic tumour volume",
        "Smallest component kept",
        "Size of the lesions of a typical study",
    ]
    assert page.locator(".sweep tbody tr").count() == 3


def test_a_thumbnail_and_a_link_lead_to_the_report(page: Any) -> None:
    assert page.evaluate("() => document.querySelector('#study-0 img').naturalWidth") > 10
    page.click("#study-0 a")
    page.wait_for_selector("#axial")
    assert page.inner_text("h1") == "phantom-0"


def test_the_table_sorts_numbers_and_names(page: Any) -> None:
    order = "() => [...document.querySelectorAll('#studies tbody tr')].map(row => row.id.at(-1)).join('')"
    page.locator("#studies th", has_text="Dice").locator("button").click()
    assert page.evaluate(order) == "102"
    page.locator("#studies th", has_text="Study").locator("button").click()
    page.keyboard.press("Enter")
    assert page.evaluate(order) == "102"


def test_a_point_leads_to_its_row(page: Any) -> None:
    page.locator(".plot circle").nth(1).click()
    assert page.url.endswith("#study-1")
    assert page.locator("#study-1").evaluate("row => row.matches(':target')")


def test_a_batch_without_a_reference_has_no_scores(tmp_path: Path) -> None:
    rows = [CohortRow("one", volume_ml=12.3, lesions=4, note="The CT ends early.")]
    path = tmp_path / "cohort.html"
    write_cohort_report(path, rows, [], CohortFacts(created=CREATED, title="Batch"))
    text = path.read_text(encoding="utf-8")
    assert "12.3" in text and "The CT ends early." in text
    assert "Dice" not in text and "<svg" not in text and "failed" not in text


def test_a_batch_in_which_all_failed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cohort.html"
    write_cohort_report(path, [], [("one", "no dose")], CohortFacts(created=CREATED, title="Batch"))
    assert "No study was finished." in path.read_text(encoding="utf-8")


def test_the_same_input_gives_the_same_page(tmp_path: Path) -> None:
    pages = []
    for name in ("a.html", "b.html"):
        rows = [CohortRow(row.case_id, row) for row in METRICS]
        write_cohort_report(tmp_path / name, rows, [], CohortFacts(created=CREATED, title="Test set"))
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_report_without_a_picture_gives_no_thumbnail(tmp_path: Path) -> None:
    broken = tmp_path / "report.html"
    assert read_thumbnail(broken) is None
    broken.write_text('<link rel="icon" href="data:image/png;base64,AA=="onload=x">')
    assert read_thumbnail(broken) is None
    broken.write_bytes(b"\xff\xfe\x00")
    assert read_thumbnail(broken) is None
