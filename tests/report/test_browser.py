"""The report in a real browser: it opens without a network, shows the study and does what a reader asks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petlesion.lesions import measure_lesions
from petlesion.report.projections import LESION_COLOUR
from petlesion.volume import Study, Volume
from tests.conftest import make_phantom
from tests.report.conftest import WriteStudyReport, pixels

OpenPage = Callable[..., Any]

VIEWS = ("front", "side", "axial", "coronal", "sagittal")
HOSTILE = (
    "</script><script>console.log('broken in')</script><img src=x onerror=\"console.log('in')\">&amp;{{7*7}}"
)


def ready(page: Any) -> Any:
    page.wait_for_selector("body[data-ready]")
    return page


def cursor_mm(page: Any) -> list[float]:
    text = page.inner_text("#readout")
    return [float(part.split()[-1]) for part in text[text.index("x ") : text.index(" mm")].split(",")]


def settle(page: Any) -> None:
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture
def page(open_page: OpenPage, phantom_report: Path) -> Any:
    return ready(open_page(phantom_report))


def test_all_five_views_show_the_study(page: Any) -> None:
    for view in VIEWS:
        assert len(np.unique(pixels(page, view).reshape(-1, 4), axis=0)) > 50, view


def test_a_click_on_a_lesions_row_moves_the_crosshair_to_its_centroid(page: Any, phantom: Study) -> None:
    table = measure_lesions(phantom.reference, phantom.pet)
    for lesion in reversed(table.lesions):
        page.click(f"tr[data-lesion='{lesion.number}'] td:nth-child(3)")
        settle(page)
        assert cursor_mm(page) == pytest.approx(lesion.centroid_mm, abs=0.06)
        assert f"lesion {lesion.number}" in page.inner_text("#readout")
        assert page.get_attribute(f"tr[data-lesion='{lesion.number}']", "aria-current") == "true"


def test_the_crosshair_stands_where_the_lesion_is_in_every_view(page: Any, phantom: Study) -> None:
    """At the crossing of the green lines lies the selected lesion's outline, drawn in blue."""
    page.click("tr[data-lesion='2'] td:nth-child(3)")
    settle(page)
    for view in VIEWS:
        image = pixels(page, view).astype(int)
        green = (image[..., 1] > image[..., 0] + 60) & (image[..., 1] > image[..., 2] + 40)
        blue = (image[..., 2] > 170) & (image[..., 0] < 90) & (image[..., 1] < 180)
        assert green.any() and blue.any(), view
        row, column = green.sum(axis=1).argmax(), green.sum(axis=0).argmax()
        rows, columns = np.nonzero(blue)
        assert abs(rows.mean() - row) < 6 and abs(columns.mean() - column) < 6, view


def test_keys_move_choose_and_step(page: Any) -> None:
    before = cursor_mm(page)
    page.focus("#axial")
    for key in ("ArrowRight", "ArrowDown", "PageUp"):
        page.keyboard.press(key)
    settle(page)
    moved = np.subtract(cursor_mm(page), before)
    # The phantom's voxels measure 4 mm; the step starts at the nearest voxel.
    assert np.allclose(moved, 4, atol=2.1) and (moved > 0).all()
    page.keyboard.press("1")
    assert page.is_checked("#suv-5")
    page.keyboard.press("6")
    assert page.is_checked("#ct-bone")
    page.keyboard.press("o")
    assert not page.is_checked("#outlines")
    page.keyboard.press("n")
    settle(page)
    assert page.get_attribute("tr[data-lesion='2']", "aria-current") == "true"
    page.keyboard.press("b")
    page.keyboard.press("b")
    settle(page)
    assert page.get_attribute("tr[data-lesion='3']", "aria-current") == "true"


def test_the_table_and_the_zoom_work_by_keyboard_alone(page: Any) -> None:
    page.focus("tr[data-lesion='3'] button")
    page.keyboard.press("Enter")
    settle(page)
    assert "lesion 3" in page.inner_text("#readout")
    for key in ("+", "="):
        page.keyboard.press(key)
    settle(page)
    assert "zoom 2×" in page.inner_text("#readout")
    page.keyboard.press("-")
    settle(page)
    assert "zoom 1.5×" in page.inner_text("#readout")


def test_on_paper_the_whole_table_stands_in_black_on_white_without_controls(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    spots = np.zeros(phantom.pet.shape, dtype=bool)
    spots[:40:8, :40:8, 20] = True
    study = replace(phantom, reference=Volume(spots, phantom.pet.affine))
    page = ready(open_page(write_study_report(study), color_scheme="dark"))
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.is_visible("#controls") and not page.is_visible(".keys")
    frame, table = (page.locator(name).bounding_box() for name in (".scroll", "#lesions"))
    assert page.locator("#lesions tbody tr").count() == 25 and frame["height"] >= table["height"]
    colours = page.evaluate(
        "() => ['color', 'backgroundColor'].map(key => getComputedStyle(document.body)[key])"
    )
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]


def test_the_wheel_goes_through_the_slices(page: Any) -> None:
    before = cursor_mm(page)
    page.hover("#coronal")
    page.mouse.wheel(0, -100)
    settle(page)
    after = cursor_mm(page)
    assert after[0] == before[0] and after[2] == before[2]
    assert 0 < after[1] - before[1] < 6.1


def test_a_click_in_a_plane_moves_the_other_two(page: Any) -> None:
    before = cursor_mm(page)
    box = page.locator("#axial").bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"])
    settle(page)
    after = cursor_mm(page)
    assert after[0] > before[0] - 200 and after[2] == before[2] and after[:2] != before[:2]


def test_a_drag_turns_the_projections_and_a_click_on_a_lesion_selects_it(page: Any, phantom: Study) -> None:
    box = page.locator("#front").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 100, middle[1], steps=4)
    page.mouse.up()
    settle(page)
    assert page.input_value("#angle") == "6"
    assert "60°" in page.inner_text("#front-caption") and "150°" in page.inner_text("#side-caption")
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert page.input_value("#angle") == "5"
    # The second of the three balls lies on the axis, in the middle of the picture from all sides.
    page.mouse.click(*middle)
    settle(page)
    middle_mm = [lesion.centroid_mm for lesion in measure_lesions(phantom.reference, phantom.pet).lesions]
    assert cursor_mm(page) == pytest.approx(sorted(middle_mm, key=lambda mm: mm[2])[1], abs=0.06)


def test_windows_and_outlines_change_the_picture(page: Any) -> None:
    seen = []
    for selector in ("#suv-10", "#suv-5", "#ct-lung", "#show-pet", "#show-ct", "#ct-bone", "#outlines"):
        page.check(selector) if selector != "#outlines" else page.uncheck(selector)
        settle(page)
        seen.append(pixels(page, "coronal").tobytes())
    assert len(set(seen)) == len(seen)


def test_a_click_on_a_head_sorts_the_table(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    slices = np.arange(phantom.pet.shape[0], dtype=np.float32)[:, None, None]
    study = replace(phantom, pet=phantom.pet.with_array(phantom.pet.array * (1 + slices / 10)))
    lesions = measure_lesions(study.reference, study.pet).lesions
    by_tlg = [lesion.number for lesion in sorted(lesions, key=lambda lesion: -lesion.tlg)]
    assert by_tlg != [1, 2, 3]
    page = ready(open_page(write_study_report(study)))
    head = page.locator("#lesions th", has_text="TLG")
    order = "() => [...document.querySelectorAll('#lesions tbody tr')].map(row => Number(row.dataset.lesion))"
    head.locator("button").click()
    assert page.evaluate(order) == by_tlg and head.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert page.evaluate(order) == by_tlg[::-1] and head.get_attribute("aria-sort") == "ascending"


def test_hostile_texts_are_shown_and_never_run(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    study = replace(phantom, name=HOSTILE, warnings=(HOSTILE + "1",))
    facts = {"model": {HOSTILE: HOSTILE}, "conversion": {"x": HOSTILE}, "flag": HOSTILE, "version": HOSTILE}
    page = ready(open_page(write_study_report(study, warnings=(HOSTILE + "2",), **facts)))
    assert page.inner_text("h1") == HOSTILE
    assert page.title().startswith(HOSTILE)
    assert page.locator(f"text={HOSTILE[:20]}").count() >= 5
    assert page.locator("img").count() == 0


def test_a_study_without_a_lesion_says_so(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    empty = Volume(np.zeros(phantom.pet.shape, dtype=bool), phantom.pet.affine)
    page = ready(open_page(write_study_report(replace(phantom, reference=empty))))
    assert "No lesion was found" in page.inner_text(".empty")
    assert page.locator("table").count() == 0
    page.keyboard.press("n")
    assert "no lesion" in page.inner_text("#readout")


def test_a_study_without_a_ct_is_shown_by_its_pet(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    page = ready(open_page(write_study_report(replace(phantom, ct=None))))
    assert page.locator("[name=ct-window], #show-ct").count() == 0
    assert "HU" not in page.inner_text("#readout")
    assert len(np.unique(pixels(page, "axial").reshape(-1, 4), axis=0)) > 20


def test_a_thousand_lesions_stay_usable(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    spots = np.zeros(phantom.pet.shape, dtype=bool)
    spots[:40:4, :40:4, :40:4] = True
    page = ready(open_page(write_study_report(replace(phantom, reference=Volume(spots, phantom.pet.affine)))))
    assert page.locator("#lesions tbody tr").count() == 1000
    page.keyboard.press("b")
    settle(page)
    assert page.get_attribute("tr[data-lesion='1000']", "aria-current") == "true"
    assert page.locator("tr[data-lesion='1000']").is_visible()
    assert page.evaluate("() => document.documentElement.scrollHeight") < 3000


def test_confidence_has_a_column_and_lessens_colour(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    def strongest_red(confidence: list[float]) -> int:
        page = ready(open_page(write_study_report(phantom, confidence=confidence)))
        assert page.locator("#lesions th", has_text="Conf.").count() == 1
        image = pixels(page, "front").astype(int)
        return int((image[..., 0] - image[..., 1]).max())

    assert strongest_red([0.0, 0.0, 0.0]) + 40 < strongest_red([1.0, 1.0, 1.0])


def test_the_outline_of_a_doubtful_lesion_is_paler(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    spots = np.zeros(phantom.pet.shape, dtype=np.uint8)
    spots[8:12, 8:16, 8:16] = spots[8:12, 24:30, 24:30] = 1
    study = replace(phantom, reference=Volume(spots, phantom.pet.affine))

    def pixels_of_its_colour(confidence: float) -> int:
        page = ready(open_page(write_study_report(study, confidence=[1.0, confidence])))
        image = pixels(page, "axial").astype(int)
        return int((np.abs(image[..., :3] - LESION_COLOUR).max(axis=-1) < 25).sum())

    assert pixels_of_its_colour(0.0) == 0 and pixels_of_its_colour(1.0) > 20


def test_uncertainty_can_be_laid_over_the_planes(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    uncertainty = phantom.pet.with_array(np.full(phantom.pet.shape, 0.75, dtype=np.float32))
    page = ready(open_page(write_study_report(phantom, uncertainty=uncertainty)))
    assert "uncertainty 0.75" in page.inner_text("#readout")
    before = pixels(page, "axial").mean(axis=(0, 1))
    page.keyboard.press("u")
    settle(page)
    after = pixels(page, "axial").mean(axis=(0, 1))
    assert after[2] > before[2] + 30


def test_a_judged_study_tells_what_to_expect_and_what_to_doubt(
    open_page: OpenPage, write_study_report: WriteStudyReport, phantom: Study
) -> None:
    doubt = "The study looks unlike those that the model was trained on: the body's median SUV is 7.09."
    entropy = phantom.pet.with_array(np.full(phantom.pet.shape, 0.25, dtype=np.float32))
    report = write_study_report(
        phantom, confidence=[0.9, 0.5, 0.2], flag=doubt, expected_dice=0.714, uncertainty=entropy
    )
    page = ready(open_page(report))
    assert page.inner_text("[role=alert]") == f"Needs a careful look: {doubt}"
    assert "Expected Dice" in page.inner_text(".totals") and "0.71" in page.inner_text(".totals")
    assert page.locator("#uncertainty").is_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 1280


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "SLA"])
def test_the_patients_left_is_on_the_right_in_any_storage_order(
    open_page: OpenPage, write_study_report: WriteStudyReport, orientation: str
) -> None:
    study = make_phantom((36, 40, 44))
    pet = np.full(study.pet.shape, 1.0, dtype=np.float32)
    pet[:, :, 22:] = 8.0  # the left half, since x grows to the left in LPS
    study = replace(study, pet=study.pet.with_array(pet)).reoriented(orientation)
    page = ready(open_page(write_study_report(study)))
    page.check("#show-pet")
    page.uncheck("#outlines")
    settle(page)
    for view in ("front", "axial", "coronal"):
        grey = pixels(page, view)[..., 0].astype(float)
        rows, middle = slice(2 * grey.shape[0] // 5, 3 * grey.shape[0] // 5), grey.shape[1] // 2
        right, left = grey[rows, middle - 40 : middle - 12], grey[rows, middle + 12 : middle + 40]
        assert left.mean() < right.mean() - 60, view


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 1920])
def test_the_first_screen_holds_all_views_and_no_line_runs_out(
    open_page: OpenPage, phantom_report: Path, scheme: str, width: int
) -> None:
    page = open_page(phantom_report, color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": width * 9 // 16})
    ready(page)
    settle(page)
    for view in VIEWS:
        box = page.locator(f"#{view}").bounding_box()
        assert box["y"] + box["height"] <= width * 9 // 16 and box["x"] + box["width"] <= width
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    # Text stands out from its ground by 4.5 to 1 or more (WCAG 2.2, 1.4.3).
    assert page.evaluate(CONTRAST, "h1") >= 4.5 and page.evaluate(CONTRAST, ".totals dt") >= 4.5


CONTRAST = """selector => {
    const luminance = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const element = document.querySelector(selector);
    let ground = element;
    const transparent = (node) => getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)";
    while (transparent(ground)) ground = ground.parentElement;
    const [a, b] = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
