"""The report as a file: what it says, what it refuses, that it is the same again."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from petlesion.errors import GeometryError, StudyError, ValueRangeError
from petlesion.lesions import LesionTable, measure_lesions
from petlesion.report.html import ReportFacts, write_report
from petlesion.volume import Study, Volume
from tests.report.conftest import CREATED, WriteStudyReport

FACTS = ReportFacts(created=CREATED)


def data_of(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.S)[1])


def test_the_page_says_what_was_measured_and_how(
    write_study_report: WriteStudyReport, phantom: Study
) -> None:
    study = replace(phantom, warnings=("The CT ends at the chin.", "Twice."))
    path = write_study_report(
        study,
        title="Study 17",
        model={"Model": "model-b", "Folds": "5"},
        conversion={"Units": "BQML"},
        warnings=("Twice.", "The dose was guessed."),
        flag="Two of five members disagree.",
    )
    text = path.read_text(encoding="utf-8")
    table = measure_lesions(phantom.reference, phantom.pet)
    for expected in (
        "Study 17",
        "For research use only",
        "The CT ends at the chin.",
        "The dose was guessed.",
        "3 warnings",
        "Two of five members disagree.",
        "model-b",
        "BQML",
        CREATED,
        f"{table.metabolic_tumour_volume_ml:,.1f}",
        f"{table.total_lesion_glycolysis:,.1f}",
        "56 × 48 × 40",
        "4.00 × 4.00 × 4.00 mm",
    ):
        assert expected in text
    assert text.count("Twice.") == 1


def test_the_page_forbids_every_request_and_asks_for_none(
    write_study_report: WriteStudyReport, phantom: Study
) -> None:
    text = write_study_report(phantom).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src &#39;none&#39;") and "unsafe" not in policy
    assert not re.search(r"https?://|@import|\bimport\b[^;]*from|<link[^>]*href=\"(?!data:)", text)


def test_the_same_input_gives_the_same_file(write_study_report: WriteStudyReport, phantom: Study) -> None:
    first = write_study_report(phantom).read_bytes()
    assert write_study_report(phantom).read_bytes() == first


def test_centroids_are_the_tables_in_the_shown_part(
    write_study_report: WriteStudyReport, phantom: Study
) -> None:
    study = phantom.reoriented("RAS")
    data = data_of(write_study_report(study))
    affine = np.array(data["grid"]["affine"])
    for shown, lesion in zip(
        data["lesions"], measure_lesions(study.reference, study.pet).lesions, strict=True
    ):
        z, y, x = shown["centroid"]
        assert affine @ (x, y, z, 1) == pytest.approx(lesion.centroid_mm, abs=1e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("image", ["pet", "ct"])
def test_voxels_that_are_no_numbers_are_refused(
    tmp_path: Path, phantom: Study, image: str, bad: float
) -> None:
    array = getattr(phantom, image).array.copy()
    array[3, 4, 5] = bad
    study = replace(phantom, **{image: phantom.pet.with_array(array)})
    table = measure_lesions(phantom.reference, phantom.pet)
    with pytest.raises(
        ValueRangeError, match=f"phantom-0: the {image.upper()} has voxels that are not finite"
    ):
        write_report(tmp_path / "report.html", study, phantom.reference, table, FACTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_pet_of_one_slice_is_refused(tmp_path: Path, phantom: Study, axis: int) -> None:
    slice_ = tuple(slice(20, 21) if a == axis else slice(None) for a in range(3))
    pet, mask = (Volume(v.array[slice_], v.affine) for v in (phantom.pet, phantom.reference))
    with pytest.raises(GeometryError, match=r"study flat: a PET of shape .* is a single slice"):
        write_report(tmp_path / "report.html", Study("flat", pet), mask, measure_lesions(mask, pet), FACTS)


def test_a_mask_or_an_uncertainty_that_does_not_fit_is_refused(tmp_path: Path, phantom: Study) -> None:
    table = measure_lesions(phantom.reference, phantom.pet)
    elsewhere = Volume(phantom.reference.array, phantom.reference.affine + np.eye(4)[:, [0, 1, 3, 2]] * 5)
    other_shape = Volume(np.zeros((3, 4, 5), dtype=bool), phantom.pet.affine)
    for mask in (elsewhere, other_shape):
        with pytest.raises(GeometryError, match="the mask's grid"):
            write_report(tmp_path / "report.html", phantom, mask, table, FACTS)
    with pytest.raises(GeometryError, match="the uncertainty's grid"):
        facts = replace(FACTS, uncertainty=other_shape)
        write_report(tmp_path / "report.html", phantom, phantom.reference, table, facts)
    with pytest.raises(StudyError, match="lesion table"):
        write_report(tmp_path / "report.html", phantom, phantom.reference, LesionTable(()), FACTS)


def test_two_slices_are_enough(tmp_path: Path, phantom: Study) -> None:
    pet, mask = (Volume(v.array[20:22], v.affine) for v in (phantom.pet, phantom.reference))
    write_report(tmp_path / "report.html", Study("thin", pet), mask, measure_lesions(mask, pet), FACTS)
    assert data_of(tmp_path / "report.html")["grid"]["shape"][0] == 2
