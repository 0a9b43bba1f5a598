import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from petlesion.cohort.layout import (
    Case,
    Cohort,
    Fold,
    add_study,
    create_cohort,
    default_name,
    is_complete,
    write_folds,
    write_index,
)
from petlesion.errors import CohortError, StudyError, UsageError, ValueRangeError
from petlesion.volume import Study
from tests.cohort.trees import small_cohort, small_study


def test_what_is_added_is_read_back(tmp_path: Path) -> None:
    study = small_study(3)
    add_study(create_cohort(tmp_path / "c"), study, case_id="a", patient_id="p", source="s")
    cohort = Cohort.open(tmp_path / "c")
    again = cohort.read_study("a")
    assert again.ct is not None and study.ct is not None and again.reference is not None
    np.testing.assert_array_equal(again.pet.array, study.pet.array)
    np.testing.assert_array_equal(again.ct.array, study.ct.array)
    assert study.reference is not None
    np.testing.assert_array_equal(again.reference.array, study.reference.array)
    assert again.pet.grid.matches(study.pet.grid)
    expected_ml = study.reference.array.sum() * 4.0**3 / 1000
    assert cohort.cases == (Case("a", "p", "s", "train", pytest.approx(expected_ml)),)


def test_images_are_stored_in_lps_as_float_and_bytes(tmp_path: Path) -> None:
    study = small_study().reoriented("RAS")
    cohort = add_study(create_cohort(tmp_path / "c"), study, case_id="a", patient_id="p", source="s")
    ct, pet, label = (nibabel.load(path) for path in cohort.paths("a"))
    # NIfTI's world is RAS, so an array in LPS runs against its first two axes.
    assert nibabel.aff2axcodes(pet.affine) == ("L", "P", "S")
    assert (ct.get_data_dtype(), pet.get_data_dtype()) == (np.float32, np.float32)
    assert label.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(ct.affine, label.affine)
    np.testing.assert_array_equal(np.unique(label.dataobj), [0, 1])


def test_dataset_json_maps_training_cases_only(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "Dataset007_Small")
    cases = [
        Case(**{**case.__dict__, "split": "test"}) if i == 1 else case for i, case in enumerate(cohort.cases)
    ]
    write_index(cohort.with_cases(cases))
    dataset = json.loads((cohort.folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT", "1": "PET"}
    assert dataset["labels"] == {"background": 0, "lesion": 1}
    assert dataset["file_ending"] == ".nii.gz"
    assert (dataset["numTraining"], dataset["name"]) == (2, "Dataset007_Small")
    assert dataset["dataset"] == {
        case: {
            "images": [f"imagesTr/{case}_0000.nii.gz", f"imagesTr/{case}_0001.nii.gz"],
            "label": f"labelsTr/{case}.nii.gz",
        }
        for case in ("case-0", "case-2")
    }
    again = Cohort.open(cohort.folder)
    assert [case.case_id for case in again.test_cases] == ["case-1"]


def test_stock_nnunet_sees_the_training_cases(tmp_path: Path) -> None:
    utils = pytest.importorskip("nnunetv2.utilities.utils")
    cohort = small_cohort(tmp_path / "Dataset007_Small")
    write_index(cohort.with_cases([Case("case-0", "patient-0", "here", "test", 1.0), *cohort.cases[1:]]))
    found = utils.get_filenames_of_train_images_and_targets(str(cohort.folder))
    assert sorted(found) == ["case-1", "case-2"]
    assert found["case-1"]["images"] == [str(path) for path in cohort.paths("case-1")[:2]]
    assert found["case-1"]["label"] == str(cohort.label_path("case-1"))


def test_the_columns_of_the_table(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c", 1)
    header, row = (cohort.folder / "cases.csv").read_text().splitlines()
    assert header == "case_id,patient_id,source,split,reference_volume_ml"
    assert row.startswith("case-0,patient-0,here,train,")


def test_folds_are_read_back_and_must_cover_the_training_cases(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c")
    with pytest.raises(CohortError, match="not split yet"):
        _ = cohort.folds
    folds = [
        Fold(("case-1", "case-2"), ("case-0",)),
        Fold(("case-0",), ("case-1", "case-2")),
    ]
    write_folds(cohort, folds)
    assert Cohort.open(cohort.folder).folds == folds
    written = json.loads((cohort.folder / "splits_final.json").read_text())
    assert written[0] == {"train": ["case-1", "case-2"], "val": ["case-0"]}
    write_folds(cohort, folds[:1])
    with pytest.raises(CohortError, match="do not cover"):
        _ = cohort.folds


def test_adding_to_a_cohort_keeps_splits_and_order(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c")
    cases = [Case(**{**case.__dict__, "split": "test"}) for case in cohort.cases]
    cohort = cohort.with_cases(cases)
    cohort = add_study(cohort, small_study(9), case_id="case-1", patient_id="patient-1", source="here")
    cohort = add_study(cohort, small_study(8), case_id="a-case", patient_id="p", source="there")
    assert [(case.case_id, case.split) for case in Cohort.open(cohort.folder).cases] == [
        ("a-case", "train"),
        ("case-0", "test"),
        ("case-1", "test"),
        ("case-2", "test"),
    ]


def test_a_case_is_complete_when_its_files_are(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c")
    assert is_complete(cohort, "case-0")
    assert not is_complete(cohort, "case-9")
    cohort.label_path("case-0").unlink()
    assert not is_complete(cohort, "case-0")
    whole = cohort.image_path("case-1", 1).read_bytes()
    cohort.image_path("case-1", 1).write_bytes(whole[:200])
    assert not is_complete(cohort, "case-1")


def test_a_case_whose_image_is_cut_off_is_not_complete(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c")
    path = cohort.image_path("case-0", 1)
    path.write_bytes(path.read_bytes()[:-7])
    assert not is_complete(cohort, "case-0")


def test_a_study_without_ct_or_reference_is_refused(tmp_path: Path) -> None:
    cohort = create_cohort(tmp_path / "c")
    study = small_study()
    for bad, what in (
        (Study("x", study.pet, None, study.reference), "CT"),
        (Study("x", study.pet, study.ct), "mask"),
    ):
        with pytest.raises(StudyError, match=what):
            add_study(cohort, bad, case_id="a", patient_id="p", source="s")
    with pytest.raises(ValueRangeError, match="case id"):
        add_study(cohort, study, case_id="../a", patient_id="p", source="s")
    assert not (tmp_path / "c").exists()


def test_a_label_with_another_value_is_named(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c", 1)
    path = cohort.label_path("case-0")
    image = nibabel.load(path)
    array = np.asarray(image.dataobj).copy()
    array[0, 0, 0] = 3
    nibabel.save(nibabel.Nifti1Image(array, image.affine), path)
    with pytest.raises(ValueRangeError, match=r"case-0\.nii\.gz.*value 3"):
        cohort.read_study("case-0")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("a,b\n", "first line"),
        ("case_id,patient_id,source,split,reference_volume_ml\na,p,s,train\n", "4 values"),
        ("case_id,patient_id,source,split,reference_volume_ml\na,p,s,later,1\n", "train or test"),
        ("case_id,patient_id,source,split,reference_volume_ml\na,p,s,test,-1\n", "no volume"),
        ("case_id,patient_id,source,split,reference_volume_ml\na,p,s,test,big\n", "no volume"),
        ("case_id,patient_id,source,split,reference_volume_ml\n../a,p,s,test,1\n", "case id"),
        ("case_id,patient_id,source,split,reference_volume_ml\na,p,s,test,1\na,p,s,test,1\n", "occurs twice"),
    ],
)
def test_a_bad_table_is_told(tmp_path: Path, table: str, problem: str) -> None:
    (tmp_path / "cases.csv").write_text(table)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(CohortError, match=problem):
        Cohort.open(tmp_path)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path / "c", 2)
    table = cohort.folder / "cases.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert [case.case_id for case in Cohort.open(cohort.folder).cases] == ["case-0", "case-1"]


@pytest.mark.parametrize("file", ["cases.csv", "dataset.json"])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1, 2]"])
def test_a_broken_index_is_told(tmp_path: Path, file: str, content: bytes) -> None:
    cohort = small_cohort(tmp_path / "c", 1)
    (cohort.folder / file).write_bytes(content)
    with pytest.raises(CohortError, match=file):
        Cohort.open(cohort.folder)


def test_what_is_no_cohort_is_told(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no such folder"):
        Cohort.open(tmp_path / "absent")
    with pytest.raises(CohortError, match=r"cases\.csv is missing"):
        Cohort.open(tmp_path)
    (tmp_path / "something").write_text("")
    with pytest.raises(UsageError, match="not a cohort"):
        create_cohort(tmp_path)


def test_names(tmp_path: Path) -> None:
    assert default_name(tmp_path / "Dataset123_Some-thing") == "Dataset123_Some-thing"
    assert default_name(tmp_path / "my cohort") == "Dataset001_mycohort"
    with pytest.raises(UsageError, match="Dataset001_Sarcoma"):
        create_cohort(tmp_path / "c", "sarcoma")
    cohort = small_cohort(tmp_path / "Dataset002_There")
    assert create_cohort(cohort.folder, "Dataset002_There").cases == cohort.cases
    with pytest.raises(UsageError, match="Dataset002_There"):
        create_cohort(cohort.folder, "Dataset003_Else")
