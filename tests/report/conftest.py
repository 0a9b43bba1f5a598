"""A real browser, and reports to open in it."""

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlesion.lesions import measure_lesions
from petlesion.report.html import ReportFacts, write_report
from petlesion.volume import Study
from tests.conftest import make_phantom

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CREATED = "2026-01-02T03:04:05+00:00"

WriteStudyReport = Callable[..., Path]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium with a fresh profile; the test skips where it or Playwright is absent."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is absent: install it (Debian: apt-get install chromium) to test pages in it")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a file as a page; at the end of the test no page may have said or asked for anything."""
    contexts, complaints, requests = [], [], []

    def open_file(path: Path, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 720}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("file:", "data:"))} == set()


@pytest.fixture
def write_study_report(tmp_path: Path) -> WriteStudyReport:
    """Write the report of a study with its reference as the mask."""
    return lambda study, **options: write_reference(tmp_path / "report.html", study, **options)


@pytest.fixture(scope="session")
def phantom_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the phantom; not to be changed."""
    return write_reference(tmp_path_factory.mktemp("phantom") / "report.html", make_phantom())


def write_reference(path: Path, study: Study, *, confidence: list[float] | None = None, **facts: Any) -> Path:
    """Write a study's report with its reference as the mask."""
    mask = study.reference
    assert mask is not None
    table = measure_lesions(mask, study.pet, confidence)
    write_report(path, study, mask, table, ReportFacts(**{"created": CREATED, **facts}))
    return path


def pixels(page: Any, canvas: str) -> np.ndarray:
    """The canvas with this id as an array [row, column, RGBA]."""
    url = page.evaluate("id => document.getElementById(id).toDataURL()", canvas)
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))
