from pathlib import Path

import nibabel
import numpy as np
import pytest

from petlesion.cohort.check import case_problems, cohort_problems, hu_problem, require_sound, suv_problem
from petlesion.cohort.layout import Case, Cohort, Fold, write_folds, write_index
from petlesion.cohort.split import SplitSettings, split_cohort
from petlesion.errors import ValueRangeError
from petlesion.volume import Study
from tests.cohort.trees import index_only, small_cohort, small_study


def problems(cohort: Cohort) -> list[str]:
    found = cohort_problems(cohort)
    for case in cohort.cases:
        found += case_problems(cohort, case)
    return [problem.sentence for problem in found]


def rewrite(path: Path, change: object, affine: np.ndarray | None = None) -> None:
    image = nibabel.load(path)
    array = np.asarray(image.dataobj).copy()
    if callable(change):
        array = change(array)
    nibabel.save(nibabel.Nifti1Image(array, image.affine if affine is None else affine), path)


def with_value(value: float) -> object:
    def change(array: np.ndarray) -> np.ndarray:
        array[5, 5, 5] = value
        return array

    return change


def test_a_sound_cohort_has_no_problem(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c", 6)
    assert problems(cohort) == []
    assert problems(split_cohort(cohort, SplitSettings(folds=2))) == []


@pytest.mark.parametrize(
    ("which", "change", "sentence"),
    [
        (1, with_value(np.nan), "PET holds values that are not finite"),
        (1, with_value(9000.0), "cannot be SUV"),
        (1, lambda array: array * 100, "typical value"),
        (1, lambda array: array * 0.001, "too low for SUV"),
        (0, with_value(np.inf), "CT holds values that are not finite"),
        (0, lambda array: array * 0 + 40, "cannot be HU"),
        (0, lambda array: array + 1024, "cannot be HU"),
        (0, with_value(-9000.0), "cannot be HU"),
        (2, with_value(2), "value 2"),
        (2, lambda array: array * 0, "holds 0 mL"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, which: int, change: object, sentence: str) -> None:
    cohort = small_cohort(tmp_path / "c", 1)
    rewrite(cohort.paths("case-0")[which], change)
    (problem,) = problems(cohort)
    assert sentence in problem


def test_grids_orientation_and_files(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c", 4)
    rewrite(cohort.image_path("case-0", 0), lambda array: array[1:])
    cohort.label_path("case-1").unlink()
    for path in cohort.paths("case-2"):
        image = nibabel.as_closest_canonical(nibabel.load(path))
        nibabel.save(image, path)
    cohort.image_path("case-3", 1).write_bytes(b"nonsense")
    (cohort.folder / "imagesTr" / "stray_0000.nii.gz").write_bytes(b"")
    found = problems(cohort)
    for part in (
        "grid",
        "case-1.nii.gz: missing",
        "oriented RAS",
        "case-3_0001.nii.gz",
        "stray_0000.nii.gz: belongs",
    ):
        assert any(part in sentence for sentence in found), part
    assert len(found) == 5


def test_patients_on_both_sides(tmp_path: Path) -> None:
    cases = [Case(f"c{i}", f"p{i // 2}", "s", "train", 1.0) for i in range(8)]
    cases[0] = Case("c0", "p0", "s", "test", 1.0)
    cohort = index_only(tmp_path / "c", cases)
    left = [case.case_id for case in cohort.training_cases]
    half = 4
    write_folds(
        cohort, [Fold(tuple(left[:half]), tuple(left[half:])), Fold(tuple(left[half:]), tuple(left[:half]))]
    )
    found = [problem.sentence for problem in cohort_problems(cohort)]
    assert any("patient p0 is in training and in test" in sentence for sentence in found)
    assert sum("patient p2 is in training and in validation" in sentence for sentence in found) == 2
    write_folds(cohort, [Fold(tuple(left[:half]), tuple(left[half:]))])
    assert any("do not cover" in problem.sentence for problem in cohort_problems(cohort))


def test_an_empty_cohort_and_a_lost_description(tmp_path: Path) -> None:
    cohort = index_only(tmp_path / "c", [])
    assert ["no case at all" in problem.sentence for problem in cohort_problems(cohort)] == [True]
    cohort = small_cohort(tmp_path / "d", 1)
    (cohort.folder / "dataset.json").unlink()
    assert any("dataset.json is missing" in sentence for sentence in problems(Cohort.open(cohort.folder)))
    write_index(cohort)
    assert problems(cohort) == []


def test_real_looking_values_pass() -> None:
    study = small_study()
    assert study.ct is not None
    suv, hu = study.pet.array.copy(), study.ct.array.copy()
    suv[0, 0, 0] = 350.0
    hu[0, 0, 0], hu[0, 0, 1] = 3071.0, -3024.0
    assert suv_problem(suv) is None
    assert hu_problem(hu, suv) is None
    with pytest.raises(ValueRangeError, match="phantom-0"):
        require_sound(Study(study.name, study.pet.with_array(study.pet.array * 5000), study.ct))
