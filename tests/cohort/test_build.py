import re
from pathlib import Path

import numpy as np
import pytest

from petlesion.cohort.build import Source, find_entries, parse_source
from petlesion.cohort.layout import Cohort, create_cohort
from petlesion.cohort.parallel import add_all, add_in_parallel
from petlesion.cohort.sources import Entry
from petlesion.errors import CohortError, FormatError, StudyError, UsageError, ValueRangeError
from petlesion.io.nifti import write_volume
from petlesion.volume import Study
from tests.cohort.trees import doubled, hecktor_tree, nnunet_tree, small_cohort, small_study, write_study


def build(cohort: Cohort, *sources: Source) -> Cohort:
    return add_all(cohort, find_entries(sources, cohort), workers=1)


def test_a_folder_of_studies(tmp_path: Path) -> None:
    root = tmp_path / "clinic"
    write_study(root / "A", small_study(0))
    write_study(root / "B", small_study(1, lesions=False), names=("SUV", "CTres", "SEG"))
    cohort = build(create_cohort(tmp_path / "c"), parse_source(str(root)))
    assert [(case.case_id, case.patient_id, case.source) for case in cohort.cases] == [
        ("A", "A", "clinic"),
        ("B", "B", "clinic"),
    ]
    assert cohort.cases[0].has_lesion and not cohort.cases[1].has_lesion
    again = cohort.read_study("A")
    np.testing.assert_array_equal(again.pet.array, small_study(0).pet.array)


def test_suv_goes_before_pet_and_a_fine_ct_is_resampled(tmp_path: Path) -> None:
    study = small_study()
    assert study.ct is not None
    write_study(tmp_path / "in" / "A", study)
    write_volume(tmp_path / "in" / "A" / "PET.nii.gz", study.pet.with_array(study.pet.array * 4000))
    write_volume(tmp_path / "in" / "A" / "SUV.nii.gz", study.pet)
    write_volume(tmp_path / "in" / "A" / "CT.nii.gz", doubled(study.ct))
    read = build(create_cohort(tmp_path / "c"), parse_source(str(tmp_path / "in"))).read_study("A")
    assert read.ct is not None
    np.testing.assert_array_equal(read.pet.array, study.pet.array)
    inside = study.pet.array > 1
    assert np.median(np.abs(read.ct.array - study.ct.array)[inside]) < 20


def test_bad_studies_name_the_file_and_leave_nothing(tmp_path: Path) -> None:
    study = small_study()
    assert study.reference is not None
    root = tmp_path / "in"
    for name in ("no-ct", "no-seg", "truncated", "label", "counts", "grid"):
        write_study(root / name, study)
    (root / "no-ct" / "CT.nii.gz").unlink()
    (root / "no-seg" / "SEG.nii.gz").unlink()
    whole = (root / "truncated" / "PET.nii.gz").read_bytes()
    (root / "truncated" / "PET.nii.gz").write_bytes(whole[: len(whole) // 2])
    write_volume(
        root / "label" / "SEG.nii.gz", study.reference.with_array(study.reference.array * np.uint8(3))
    )
    write_volume(root / "counts" / "PET.nii.gz", study.pet.with_array(study.pet.array * 5000))
    write_volume(root / "grid" / "SEG.nii.gz", doubled(study.reference))
    cohort = create_cohort(tmp_path / "c")
    expected = {
        "no-ct": (StudyError, "no-ct.*no CT"),
        "no-seg": (StudyError, "reference mask"),
        "truncated": (FormatError, "PET.nii.gz"),
        "label": (ValueRangeError, "value 3"),
        "counts": (ValueRangeError, "SUV"),
        "grid": (Exception, "grid"),
    }
    for outcome in add_in_parallel(cohort, find_entries([parse_source(str(root))], cohort), workers=1):
        error, sentence = expected.pop(outcome.entry.case_id)
        assert isinstance(outcome.problem, error)
        assert re.search(sentence, str(outcome.problem))
    assert not expected
    assert not (tmp_path / "c").exists()


def test_a_study_too_large_for_memory_leaves_the_others_to_be_made(tmp_path: Path) -> None:
    def too_large() -> Study:
        raise MemoryError

    entries = [Entry("a", "a", too_large, "here"), Entry("b", "b", small_study, "here")]
    first, second = add_in_parallel(create_cohort(tmp_path / "c"), entries, workers=1)
    assert isinstance(first.problem, MemoryError) and second.problem is None
    assert [case.case_id for case in second.cohort.cases] == ["b"]


def test_autopet_keeps_a_patient_s_studies_together(tmp_path: Path) -> None:
    root = tmp_path / "FDG-PET-CT-Lesions"
    for patient, study in (
        ("PETCT_0a", "03-23-2003-NA-PET-CT Ganzkoerper-1"),
        ("PETCT_0a", "later 2"),
        ("PETCT_0b", "x"),
    ):
        folder = root / patient / study
        write_study(folder, small_study(), names=("SUV", "CTres", "SEG"))
        write_volume(folder / "PET.nii.gz", small_study().pet.with_array(small_study().pet.array * 9000))
    cohort = build(create_cohort(tmp_path / "c"), parse_source(f"autopet={tmp_path}"))
    assert [(case.case_id, case.patient_id, case.source) for case in cohort.cases] == [
        ("PETCT_0a_03-23-2003-NA-PET-CT-Ganzkoerper-1", "PETCT_0a", "autopet"),
        ("PETCT_0a_later-2", "PETCT_0a", "autopet"),
        ("PETCT_0b_x", "PETCT_0b", "autopet"),
    ]
    assert cohort.read_study("PETCT_0b_x").pet.array.max() < 20


@pytest.mark.parametrize("root", ["", "in", "in/FDG-PET-CT-Lesions"])
def test_autopet_s_patient_is_the_folder_above_the_study_s(root: str, tmp_path: Path) -> None:
    collection = tmp_path / "in" / "FDG-PET-CT-Lesions"
    for study in ("PETCT_0a/first", "PETCT_0a/second", "PETCT_0b/only"):
        write_study(collection / study, small_study(), names=("SUV", "CTres", "SEG"))
    entries = find_entries(
        [parse_source(f"autopet={tmp_path / root}")], Cohort(tmp_path, "Dataset001_New", ())
    )
    assert [entry.patient_id for entry in entries] == ["PETCT_0a", "PETCT_0a", "PETCT_0b"]


def test_autopet_resamples_the_ct_where_ctres_is_missing(tmp_path: Path) -> None:
    study = small_study()
    assert study.ct is not None
    write_study(tmp_path / "in" / "P" / "S", study, names=("SUV", "CT", "SEG"))
    write_volume(tmp_path / "in" / "P" / "S" / "CT.nii.gz", doubled(study.ct))
    read = build(create_cohort(tmp_path / "c"), parse_source(f"autopet={tmp_path / 'in'}")).read_study("P_S")
    assert read.ct is not None and read.ct.shape == study.pet.shape


def test_hecktor_merges_its_labels_on_the_pet_grid(tmp_path: Path) -> None:
    root = hecktor_tree(tmp_path / "h", ("CHUM-001", "MDA-002"))
    cohort = build(create_cohort(tmp_path / "c"), parse_source(f"hecktor={root}"))
    assert [(case.case_id, case.patient_id, case.source) for case in cohort.cases] == [
        ("CHUM-001", "CHUM-001", "hecktor"),
        ("MDA-002", "MDA-002", "hecktor"),
    ]
    reference, expected = cohort.read_study("MDA-002").reference, small_study(1).reference
    assert reference is not None and expected is not None
    np.testing.assert_array_equal(reference.array, expected.array)


def test_hecktor_s_other_labels_are_refused(tmp_path: Path) -> None:
    root = hecktor_tree(tmp_path / "h", ("CHUM-001",))
    label = doubled(small_study().pet)
    write_volume(root / "labelsTr" / "CHUM-001.nii.gz", label.with_array(np.full(label.shape, 5, np.uint8)))
    with pytest.raises(ValueRangeError, match="GTVn"):
        build(create_cohort(tmp_path / "c"), parse_source(f"hecktor={root}"))


def test_nnunet_s_channels_go_by_name_and_autopet_s_patients_by_case(tmp_path: Path) -> None:
    root = nnunet_tree(tmp_path / "Dataset200_X", ("fdg_aa11_20030101", "fdg_aa11_20040101", "other"))
    cohort = build(create_cohort(tmp_path / "c"), parse_source(f"nnunet:public={root}"))
    assert [(case.patient_id, case.source) for case in cohort.cases] == [
        ("PETCT_aa11", "public"),
        ("PETCT_aa11", "public"),
        ("other", "public"),
    ]
    read, expected = cohort.read_study("other"), small_study(2)
    np.testing.assert_array_equal(read.pet.array, expected.pet.array)


def test_nnunet_datasets_that_do_not_fit(tmp_path: Path) -> None:
    cohort = create_cohort(tmp_path / "c")
    several = nnunet_tree(tmp_path / "several", ("a",), {"background": 0, "primary": 1, "node": 2})
    with pytest.raises(CohortError, match="merge the labels"):
        find_entries([Source("nnunet", "n", several)], cohort)
    (several / "dataset.json").write_text("[]")
    with pytest.raises(CohortError, match="raw dataset"):
        find_entries([Source("nnunet", "n", several)], cohort)
    (several / "dataset.json").write_text(
        '{"channel_names": {"0": "T1"}, "labels": {"background": 0, "x": 1}}'
    )
    with pytest.raises(CohortError, match="none of the channels is named CT"):
        find_entries([Source("nnunet", "n", several)], cohort)


def test_cohorts_combine_and_keep_patients_and_sources(tmp_path: Path) -> None:
    first = small_cohort(tmp_path / "first", 2)
    hecktor = hecktor_tree(tmp_path / "h", ("case-0",))
    sources = [parse_source(f"nnunet={first.folder}"), parse_source(f"hecktor={hecktor}")]
    cohort = build(create_cohort(tmp_path / "c"), *sources)
    assert [(case.case_id, case.patient_id, case.source) for case in cohort.cases] == [
        ("case-0", "patient-0", "here"),
        ("case-1", "patient-1", "here"),
        ("hecktor_case-0", "case-0", "hecktor"),
    ]


def test_a_second_build_leaves_what_is_there(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "A", small_study())
    source = parse_source(str(tmp_path / "in"))
    cohort = build(create_cohort(tmp_path / "c"), source)
    before = {path: path.stat().st_mtime_ns for path in cohort.folder.rglob("*") if path.is_file()}
    write_study(tmp_path / "in" / "B", small_study(1))
    cohort = build(Cohort.open(tmp_path / "c"), source)
    assert [case.case_id for case in cohort.cases] == ["A", "B"]
    for path in cohort.paths("A"):
        assert path.stat().st_mtime_ns == before[path]
    cohort.label_path("A").unlink()
    build(cohort, source)
    assert cohort.label_path("A").is_file()


def test_sources_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no format"):
        parse_source(f"dicom3={tmp_path}")
    with pytest.raises(CohortError, match="no such folder"):
        parse_source(str(tmp_path / "absent"))
    with pytest.raises(CohortError, match="holds no study"):
        find_entries([parse_source(str(tmp_path))], create_cohort(tmp_path / "c"))
    (tmp_path / "a=b").mkdir()
    assert parse_source(str(tmp_path / "a=b")) == Source("folder", "a=b", tmp_path / "a=b")
    assert parse_source(str(tmp_path), "hecktor").name == "hecktor"
