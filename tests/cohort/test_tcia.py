from pathlib import Path

import numpy as np
import pytest

from petlesion.cohort.layout import Cohort, create_cohort
from petlesion.cohort.parallel import add_in_parallel
from petlesion.cohort.tcia import find_entries
from petlesion.dicom.seg import Provenance, write_seg
from petlesion.errors import PetlesionError
from petlesion.intake import find_studies, read_source
from tests.dicom.builders import ROOT, body_images, ct_spec, pet_spec, write_series


def write_study(folders: dict[str, Path], number: int, *, patient: str, lesions: bool = True) -> np.ndarray:
    """One study's CT, PT and SEG series, each in the folder that it is given."""
    pet, ct = body_images()
    ids = {
        "study_uid": f"{ROOT}.5{number}",
        "frame_of_reference": f"{ROOT}.6{number}",
        "patient_id": patient,
    }
    write_series(folders["PT"], pet, pet_spec(series_uid=f"{ROOT}.7{number}", **ids))
    write_series(folders["CT"], ct, ct_spec(series_uid=f"{ROOT}.8{number}", spacing=(4.0, 4.0, 4.1), **ids))
    (source,) = find_studies([folders["PT"]])
    images = read_source(source)
    mask = np.zeros(images.pet.shape, bool)
    if lesions:
        mask[3 : 4 + number, 8:12, 9:14] = True
    assert images.pet_stack is not None
    write_seg(folders["SEG"] / "1-1.dcm", images.pet.with_array(mask), images.pet_stack, Provenance("t"))
    return mask


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three studies of two patients, their series under names that say nothing."""
    root = tmp_path / "archive"
    for number, patient in ((1, "A"), (2, "A"), (3, "B"), (4, "B")):
        place = root / f"x{number % 2}" / f"y{number}"
        folders = {kind: place / f"{kind[::-1].lower()}-{number}" for kind in ("PT", "CT", "SEG")}
        write_study(folders, number, patient=patient, lesions=number != 3)
    (root / "LICENSE").write_text("CC BY")
    return root


def build(root: Path, folder: Path, workers: int = 1) -> tuple[Cohort, list[PetlesionError]]:
    cohort = create_cohort(folder)
    problems = []
    for outcome in add_in_parallel(cohort, find_entries(root), workers):
        cohort = outcome.cohort
        if outcome.problem is not None:
            problems.append(outcome.problem)
    return cohort, problems


def test_an_archive_becomes_a_cohort(archive: Path, tmp_path: Path) -> None:
    _, problems = build(archive, tmp_path / "Dataset001_T", workers=2)
    assert problems == []
    cohort = Cohort.open(tmp_path / "Dataset001_T")
    assert len(cohort.cases) == 4 and len({case.patient_id for case in cohort.cases}) == 2
    assert [case.has_lesion for case in cohort.cases].count(False) == 1
    voxel_ml = 0.064
    volumes = sorted(round(case.reference_volume_ml / voxel_ml) for case in cohort.cases)
    assert volumes == [0, 40, 60, 100]
    study = cohort.read_study(cohort.cases[0].case_id)
    np.testing.assert_allclose(study.pet.array, body_images()[0] * 0.01, rtol=1e-6)
    told = (tmp_path / "Dataset001_T" / "cases.csv").read_text()
    assert ROOT not in told and ",A," not in told


def test_it_goes_on_where_it_stopped(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_T"
    build(archive, folder)
    cohort = Cohort.open(folder)
    kept, lost = cohort.cases[0].case_id, cohort.cases[1].case_id
    before = cohort.label_path(kept).stat().st_mtime_ns
    cohort.label_path(lost).unlink()
    cohort, problems = build(archive, folder)
    assert problems == [] and cohort.label_path(lost).is_file()
    assert cohort.label_path(kept).stat().st_mtime_ns == before


def test_all_series_in_one_folder(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    for number in (1, 2):
        folders = {kind: flat / f"{kind}{number}" for kind in ("PT", "CT", "SEG")}
        write_study(folders, number, patient=f"P{number}")
    for index, path in enumerate(sorted(flat.rglob("*.dcm"))):
        path.rename(flat / f"{index:04d}.dcm")
    cohort, problems = build(flat, tmp_path / "Dataset001_T")
    assert problems == [] and len(cohort.cases) == 2


def test_studies_that_cannot_be_cases(archive: Path, tmp_path: Path) -> None:
    broken = sorted((archive / "x1" / "y1" / "tp-1").iterdir())
    broken[4].unlink()
    for path in (archive / "x0" / "y2" / "ges-2").iterdir():
        path.unlink()
    cohort, problems = build(archive, tmp_path / "Dataset001_T")
    assert len(cohort.cases) == 2
    assert any("misses 1 slice" in str(problem) for problem in problems)
    assert any("no SEG series" in str(problem) for problem in problems)
