import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from petlesion.errors import (
    FormatError,
    GeometryError,
    PetlesionError,
    StudyError,
    SuvError,
    ValueRangeError,
)
from petlesion.intake import IntakeOptions, SourceImages, find_studies, read_source, to_study
from petlesion.io.nifti import write_volume
from petlesion.volume import Study, Volume
from tests.conftest import make_phantom
from tests.dicom.builders import ROOT, SeriesSpec, body_images, ct_spec, pet_spec, structure_set, write_series


def write_nifti(folder: Path, study: Study, *, names: tuple[str, str, str] = ("PET", "CT", "SEG")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in zip(names, (study.pet, study.ct, study.reference), strict=True):
        assert volume is not None
        if name:
            write_volume(folder / (name if "." in name else f"{name}.nii.gz"), volume)


def read_one(path: Path, options: IntakeOptions | None = None) -> Study:
    (source,) = find_studies([path], options or IntakeOptions())
    return to_study(read_source(source))


def write_dicom(folder: Path, *, pet: SeriesSpec | None = None, ct: SeriesSpec | None = None) -> None:
    pet_stored, ct_stored = body_images()
    if pet is not None:
        write_series(folder / "one", pet_stored, pet)
    if ct is not None:
        write_series(folder / "two", ct_stored, ct)


# What is found.


@pytest.mark.parametrize(
    ("names", "study_name"),
    [
        (("PET", "CT", "SEG"), "folder"),
        (("SUV", "CTres", "SEG"), "folder"),
        (("pt", "ct", "mask"), "folder"),
        (("PET.mha", "CT.mha", "SEG.mha"), "folder"),
        (("PET.nrrd", "CT.nii", "SEG.nii.gz"), "folder"),
        (("case7_PET", "case7_CT", "case7_SEG"), "case7"),
        (("case7_0001", "case7_0000", ""), "case7"),
        (("CHUM-001__PT", "CHUM-001__CT", ""), "CHUM-001"),
        (("PET_case7", "CT_case7", ""), "case7"),
    ],
)
def test_image_files_are_known_by_their_names(
    tmp_path: Path, phantom: Study, names: tuple[str, str, str], study_name: str
) -> None:
    write_nifti(tmp_path / "folder", phantom, names=names)
    study = read_one(tmp_path / "folder")
    assert study.name == study_name
    np.testing.assert_array_equal(study.pet.array, phantom.pet.array)
    assert study.ct is not None and phantom.ct is not None
    np.testing.assert_allclose(study.ct.array, phantom.ct.array)
    assert (study.reference is not None) == bool(names[2])


def test_a_pair_may_be_given_as_two_files(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path / "x", phantom, names=("case7_PET", "case7_CT", "case7_SEG"))
    (source,) = find_studies([tmp_path / "x" / "case7_CT.nii.gz", tmp_path / "x" / "case7_PET.nii.gz"])
    assert source.name == "case7" and set(source.files) == {"CT", "PET"}
    (source,) = find_studies([tmp_path / "x" / "case7_PET.nii.gz"])
    assert to_study(read_source(source)).ct is None


def test_autopet_folders_prefer_suv_and_resampled_ct(tmp_path: Path, phantom: Study) -> None:
    folder = tmp_path / "study"
    write_nifti(folder, phantom, names=("SUV", "CTres", "SEG"))
    write_volume(folder / "PET.nii.gz", phantom.pet.with_array(phantom.pet.array * 4000))
    (source,) = find_studies([folder])
    write_volume(folder / "CT.nii.gz", Volume(np.zeros((3, 3, 3), np.float32), phantom.pet.affine))
    (source,) = find_studies([tmp_path])
    images = read_source(source)
    assert images.pet.array.max() == pytest.approx(10) and images.ct is not None
    assert images.ct.shape == phantom.pet.shape


def test_resampled_ct_on_another_grid_gives_way_to_the_ct(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path, phantom)
    write_volume(tmp_path / "CTres.nii.gz", Volume(np.zeros((3, 3, 3), np.float32), phantom.pet.affine))
    (source,) = find_studies([tmp_path])
    images = read_source(source)
    assert images.ct is not None and images.ct.shape == phantom.pet.shape


def test_folders_of_studies(tmp_path: Path, phantom: Study) -> None:
    for name in ("a", "b"):
        write_nifti(tmp_path / name, phantom)
    write_nifti(tmp_path / "deep" / "a", phantom)
    write_dicom(tmp_path / "dicom", pet=pet_spec(), ct=ct_spec())
    names = [source.name for source in find_studies([tmp_path])]
    assert len(names) == 4 and len(set(names)) == 4 and "b" in names


def test_dicom_studies_are_named_by_a_hash_unless_asked(tmp_path: Path) -> None:
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec())
    (source,) = find_studies([tmp_path])
    assert source.name.startswith("study-") and "secret" not in source.name
    (source,) = find_studies([tmp_path], IntakeOptions(keep_identity=True))
    assert source.name == "secret-patient_20240305"


def test_names_that_clash_do_not_hang_on_the_order(tmp_path: Path, phantom: Study) -> None:
    folders = [tmp_path / place / "site" / "p1" for place in ("one", "two", "three")]
    for folder in folders:
        write_nifti(folder, phantom)
    names = [{s.origin: s.name for s in find_studies(given)} for given in (folders, folders[::-1])]
    assert names[0] == names[1] and len(set(names[0].values())) == 3
    assert all(name.startswith("site_p1-") for name in names[0].values())


def test_a_study_given_twice_is_taken_once(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path / "p1", phantom)
    assert [source.name for source in find_studies([tmp_path / "p1", tmp_path])] == ["p1"]


def test_several_dicom_studies_in_one_folder(tmp_path: Path) -> None:
    for number in (1, 2):
        uids = {"study_uid": f"{ROOT}.5{number}", "frame_of_reference": f"{ROOT}.6{number}"}
        write_dicom(
            tmp_path / str(number),
            pet=pet_spec(series_uid=f"{ROOT}.7{number}", **uids),
            ct=ct_spec(series_uid=f"{ROOT}.8{number}", **uids),
        )
    studies = [to_study(read_source(source)) for source in find_studies([tmp_path])]
    assert len({study.name for study in studies}) == 2


def test_a_ct_with_a_study_of_its_own_is_joined_by_its_frame_of_reference(tmp_path: Path) -> None:
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec(study_uid=f"{ROOT}.55"))
    assert read_one(tmp_path).ct is not None


# What is read.


def test_a_dicom_study(tmp_path: Path) -> None:
    pet_stored, ct_stored = body_images()
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec())
    study = read_one(tmp_path)
    np.testing.assert_allclose(study.pet.array, pet_stored * 0.01, rtol=1e-6)
    assert study.ct is not None
    np.testing.assert_allclose(study.ct.array, ct_stored.astype(float) - 1024, atol=1e-3)
    assert study.warnings == ()


def test_the_reference_of_a_structure_set(tmp_path: Path) -> None:
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec())
    spec = pet_spec()
    corners = np.array([(9.5, 7.5, 4), (13.5, 7.5, 4), (13.5, 12.5, 4), (9.5, 12.5, 4)]) * 4.0 + spec.origin
    structure_set({"GTV": [corners], "Heart": [corners]}, spec).save_as(
        tmp_path / "rs.dcm", enforce_file_format=True
    )
    study = read_one(tmp_path)
    expected = np.zeros(study.pet.shape, bool)
    expected[4, 8:13, 10:14] = True
    assert study.reference is not None
    np.testing.assert_array_equal(study.reference.array, expected)
    with pytest.raises(StudyError, match="Liver"):
        read_one(tmp_path, IntakeOptions(roi="Liver"))


def drawn(folder: Path, points: tuple[tuple[float, float, float], ...], **frames: str) -> Study:
    """A study with a GTV of such corners, in voxels of the PET, and frames of reference of the drawing."""
    write_dicom(folder, pet=pet_spec(), ct=ct_spec())
    structure = structure_set({"GTV": [np.array(points) * 4.0 + pet_spec().origin]}, pet_spec())
    del structure.FrameOfReferenceUID
    for roi in structure.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = frames.get("frame", pet_spec().frame_of_reference)
    structure.save_as(folder / "rs.dcm", enforce_file_format=True)
    return read_one(folder)


def test_a_structure_set_that_is_not_of_this_pet_is_told(tmp_path: Path) -> None:
    corners = ((9.5, 7.5, 4), (13.5, 7.5, 4), (13.5, 12.5, 4))
    assert drawn(tmp_path / "own", corners).reference is not None
    elsewhere = drawn(tmp_path / "other", corners, frame=f"{ROOT}.99")
    assert elsewhere.reference is None and "another frame of reference" in elsewhere.warnings[0]


def test_a_structure_set_that_marks_nothing_or_cannot_be_laid_on_the_pet_is_told(tmp_path: Path) -> None:
    empty = drawn(tmp_path / "outside", ((-9.5, -7.5, 4), (-13.5, -7.5, 4), (-13.5, -12.5, 4)))
    assert empty.reference is not None and not empty.reference.array.any()
    assert "marks no voxel" in empty.warnings[0]
    across = ((9.5, 7.5, 2), (9.5, 12.5, 2), (9.5, 12.5, 6))
    assert "planes of the PET" in drawn(tmp_path / "across", across).warnings[0]
    with pytest.raises(GeometryError, match="planes of the PET"):
        read_one(tmp_path / "across", IntakeOptions(roi="GTV"))


def test_a_reprojection_is_no_pet(tmp_path: Path) -> None:
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec())
    turning = pet_spec(series_uid=f"{ROOT}.31", header={"SeriesType": ("WHOLE BODY", "REPROJECTION")})
    write_series(tmp_path / "mip", body_images()[0][:3], turning)
    assert read_one(tmp_path).pet.shape == body_images()[0].shape


def test_the_attenuation_corrected_series_is_taken(tmp_path: Path) -> None:
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec())
    corrected = body_images()[0]
    nac = pet_spec(series_uid=f"{ROOT}.31", header={"CorrectedImage": ("NORM", "DECY")})
    write_series(tmp_path / "nac", corrected // 2, nac)
    assert read_one(tmp_path).pet.array.max() == pytest.approx(corrected.max() * 0.01)
    with pytest.raises(SuvError, match="ATTN"):
        read_one(tmp_path, IntakeOptions(pet_series=f"{ROOT}.31"))


def test_several_reconstructions_have_to_be_chosen_from(tmp_path: Path) -> None:
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec())
    other = pet_spec(series_uid=f"{ROOT}.31", header={"SeriesDescription": "smooth"})
    write_series(tmp_path / "other", body_images()[0] // 2, other)
    with pytest.raises(StudyError, match=rf"--pet-series.*{ROOT}\.3 .*{ROOT}\.31 \(smooth"):
        read_one(tmp_path)
    study = read_one(tmp_path, IntakeOptions(pet_series=f"{ROOT}.31"))
    assert study.pet.array.max() == pytest.approx(4.0)
    with pytest.raises(StudyError, match=r"no PET series 9\.9"):
        read_one(tmp_path, IntakeOptions(pet_series="9.9"))


def test_of_several_cts_the_one_that_covers_the_pet(tmp_path: Path) -> None:
    pet_stored, ct_stored = body_images()
    described = {"SeriesDescription": "whole body"}
    write_series(tmp_path / "pet", pet_stored, pet_spec())
    write_series(tmp_path / "part", ct_stored[:4], ct_spec(series_uid=f"{ROOT}.41"))
    write_series(tmp_path / "whole", ct_stored, ct_spec(series_uid=f"{ROOT}.42", header=described))
    study = read_one(tmp_path)
    assert any("number 1 (whole body)" in warning and ROOT not in warning for warning in study.warnings)


# What is refused.


def test_paths_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist"):
        find_studies([tmp_path / "nothing"])
    with pytest.raises(StudyError, match="neither DICOM nor image"):
        find_studies([tmp_path])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(StudyError, match=r"notes\.txt"):
        find_studies([tmp_path / "notes.txt"])


def test_one_unusable_path_leaves_the_others(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path / "good", phantom)
    (tmp_path / "empty").mkdir()
    good, empty = find_studies([tmp_path / "empty", tmp_path / "good"])
    assert to_study(read_source(good)).name == "good"
    assert empty.name.startswith("study-")
    with pytest.raises(StudyError, match="empty holds neither"):
        read_source(empty)


def test_a_pet_without_ct(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path / "nifti", phantom, names=("PET", "", ""))
    write_dicom(tmp_path / "dicom", pet=pet_spec())
    assert read_one(tmp_path / "nifti").ct is None
    assert read_one(tmp_path / "dicom").ct is None


@pytest.mark.parametrize("pets", [("a_PET",), ("a_PET", "b_PET")])
def test_a_ct_whose_name_fits_no_pet(tmp_path: Path, phantom: Study, pets: tuple[str, ...]) -> None:
    for name in pets:
        write_nifti(tmp_path, phantom, names=(name, "CT", ""))
    for source, name in zip(find_studies([tmp_path]), pets, strict=True):
        with pytest.raises(
            StudyError, match=rf"{name}\.nii\.gz has no CT of its name, and CT\.nii\.gz beside"
        ):
            read_source(source)


def test_a_stray_ct_leaves_pairs_alone(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path, phantom, names=("a_PET", "a_CT", ""))
    write_nifti(tmp_path, phantom, names=("b_PET", "CT", ""))
    paired, lone = find_studies([tmp_path])
    assert to_study(read_source(paired)).name == "a" and lone.problem is not None


def test_a_ct_without_pet(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path / "nifti", phantom, names=("", "CT", ""))
    with pytest.raises(StudyError, match="no PET"):
        find_studies([tmp_path / "nifti"])
    write_dicom(tmp_path / "dicom", ct=ct_spec())
    with pytest.raises(StudyError, match="no PET"):
        read_one(tmp_path / "dicom")


def test_two_pets(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path, phantom)
    shutil.copy(tmp_path / "PET.nii.gz", tmp_path / "PT.nii.gz")
    with pytest.raises(StudyError, match=r"PET\.nii\.gz and PT\.nii\.gz"):
        read_one(tmp_path)


@pytest.mark.parametrize("change", [{"patient_id": "another"}, {"frame_of_reference": f"{ROOT}.99"}])
@pytest.mark.parametrize("own_study", [True, False])
def test_pet_and_ct_of_different_origin(tmp_path: Path, change: dict[str, str], own_study: bool) -> None:
    study = {"study_uid": f"{ROOT}.55"} if own_study else {}
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec(**change, **study))
    with pytest.raises(StudyError, match=r"PatientID|FrameOfReferenceUID") as caught:
        read_one(tmp_path)
    assert "another" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_patient_id_that_is_missing_on_one_side_is_a_warning(tmp_path: Path) -> None:
    write_dicom(tmp_path, pet=pet_spec(), ct=ct_spec(patient_id=""))
    assert read_one(tmp_path).warnings == ("PET or CT has no PatientID; check that both were taken together",)


def test_anonymised_images_give_no_warning(tmp_path: Path) -> None:
    write_dicom(tmp_path, pet=pet_spec(patient_id=""), ct=ct_spec(patient_id=""))
    assert read_one(tmp_path).warnings == ()


@pytest.mark.parametrize(("kept", "refused"), [(20, False), (19, False), (18, True), (5, True)])
def test_a_ct_that_misses_slices(tmp_path: Path, kept: int, refused: bool) -> None:
    pet_stored, ct_stored = body_images((20, 20, 24))
    write_series(tmp_path / "pet", pet_stored, pet_spec())
    write_series(tmp_path / "ct", ct_stored[:kept], ct_spec())
    if refused:
        with pytest.raises(StudyError, match=f"misses {20 - kept} of the 20 slices"):
            read_one(tmp_path)
    else:
        assert len(read_one(tmp_path).warnings) == (kept < 20)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pet: pet * 4000, "Bq/mL"),
        (lambda pet: pet * 0, "goes up to 0"),
        (lambda pet: pet - 500, "is it a CT"),
        (lambda pet: np.where(pet > 5, np.nan, pet), "not finite"),
        (lambda pet: np.where(pet > 5, np.inf, pet), "not finite"),
    ],
)
def test_values_that_cannot_be_suv(tmp_path: Path, phantom: Study, change, words: str) -> None:
    write_nifti(tmp_path, phantom)
    write_volume(
        tmp_path / "PET.nii.gz", phantom.pet.with_array(change(phantom.pet.array).astype(np.float32))
    )
    with pytest.raises(ValueRangeError, match=words) as caught:
        read_one(tmp_path)
    assert "PET.nii.gz" in str(caught.value)


def test_dicom_values_that_cannot_be_suv(tmp_path: Path) -> None:
    pet, ct = body_images()
    write_series(tmp_path / "pet", pet // 50, pet_spec())
    write_series(tmp_path / "ct", ct, ct_spec())
    with pytest.raises(ValueRangeError, match=r"goes up to 0\.16 only"):
        read_one(tmp_path)


def test_labels_other_than_0_and_1(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path, phantom)
    assert phantom.reference is not None
    label = phantom.reference.with_array(phantom.reference.array * np.uint8(3))
    write_volume(tmp_path / "SEG.nii.gz", label)
    with pytest.raises(ValueRangeError, match=r"SEG\.nii\.gz has the value 3"):
        read_one(tmp_path)
    write_volume(tmp_path / "SEG.nii.gz", Volume(np.zeros((2, 2, 2), np.uint8), label.affine))
    with pytest.raises(GeometryError, match=r"SEG\.nii\.gz"):
        read_one(tmp_path)


def test_a_truncated_file(tmp_path: Path, phantom: Study) -> None:
    write_nifti(tmp_path, phantom)
    path = tmp_path / "PET.nii.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FormatError, match=r"PET\.nii\.gz"):
        read_one(tmp_path)
    path.write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(PetlesionError, match=r"PET\.nii\.gz"):
        read_one(tmp_path)


def test_one_broken_study_leaves_the_others(tmp_path: Path) -> None:
    for number in (1, 2):
        uids = {"study_uid": f"{ROOT}.5{number}", "frame_of_reference": f"{ROOT}.6{number}"}
        write_dicom(
            tmp_path / str(number),
            pet=pet_spec(series_uid=f"{ROOT}.7{number}", **uids),
            ct=ct_spec(series_uid=f"{ROOT}.8{number}", **uids),
        )
    broken = sorted((tmp_path / "1" / "one").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:140])
    (tmp_path / "3.zip").write_bytes(b"PK\x03\x04" + bytes(50))
    outcomes = []
    for source in find_studies([tmp_path]):
        try:
            outcomes.append(read_source(source))
        except PetlesionError as error:
            outcomes.append(error)
    assert sum(isinstance(outcome, SourceImages) for outcome in outcomes) == 1
    assert len(outcomes) == 3


def test_phantoms_of_other_orientations(tmp_path: Path) -> None:
    study = make_phantom().reoriented("RAI")
    write_nifti(tmp_path, study)
    assert read_one(tmp_path).pet.orientation == "RAI"
