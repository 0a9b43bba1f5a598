import shutil
import subprocess
import warnings
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.seg import Segmentation, SegmentDescription
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless
from scipy.spatial.transform import Rotation

from petlesion.dicom.files import DicomFile
from petlesion.dicom.rtstruct import Structure
from petlesion.dicom.seg import Provenance, source_images, write_seg
from petlesion.dicom.seg_reader import read_seg
from petlesion.errors import FormatError, GeometryError
from petlesion.intake import IntakeOptions, SourceImages, find_studies, read_source, to_study
from petlesion.volume import Grid, Volume
from tests.dicom.builders import (
    ROOT,
    SeriesSpec,
    body_images,
    ct_spec,
    enhanced_dataset,
    pet_spec,
    write_series,
)
from tests.dicom.test_series import axis_directions

MADE_BY = Provenance("test model", "1.0", "0123456789abcdef" * 4, {"min_voxels": "10"})


def source_of(folder: Path, spec: SeriesSpec | None = None) -> SourceImages:
    write_series(folder / "pet", body_images((6, 10, 12))[0], spec or pet_spec())
    (source,) = find_studies([folder])
    return read_source(source)


@pytest.fixture
def images(tmp_path: Path) -> SourceImages:
    return source_of(tmp_path / "study")


@pytest.fixture
def labels(rng: np.random.Generator) -> np.ndarray:
    array = np.zeros((6, 10, 12), np.uint16)
    array[1:3, 2:5, 3:9] = 1
    array[3:5, 6:8, 1:3] = 2
    array[2, 8, 10] = 3
    array[array > 0] *= rng.random(np.count_nonzero(array)) > 0.2
    return array


def written(images: SourceImages, array: np.ndarray, path: Path) -> pydicom.Dataset:
    assert images.pet_stack is not None
    return write_seg(path, images.pet.with_array(array), images.pet_stack, MADE_BY)


def read_back(path: Path, grid: Grid, segments: tuple[int, ...] = (1,)) -> np.ndarray:
    return read_seg(DicomFile(path), grid, [Structure(number, "") for number in segments]).array


def check_with_dciodvfy(path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian's dicom3tools)")
    result = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    assert [line for line in result.stderr.splitlines() if "Error" in line] == []


def test_a_binary_segmentation_reads_back_to_the_very_voxels(
    tmp_path: Path, images: SourceImages, labels: np.ndarray
) -> None:
    path = tmp_path / "lesions.dcm"
    dataset = written(images, labels > 0, path)
    np.testing.assert_array_equal(read_back(path, images.pet.grid), labels > 0)
    theirs = highdicom.seg.segread(path)
    assert theirs.number_of_segments == 1 and theirs.SegmentationType == "BINARY"
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.FrameOfReferenceUID == "1.2.826.0.1.3680043.8.498.77.2"
    description = theirs.get_segment_description(1)
    assert description.segmented_property_type.meaning == "Neoplasm"
    assert description.algorithm_identification.parameters == {"min_voxels": "10"}
    check_with_dciodvfy(path)


@pytest.mark.parametrize("lowest_mm", [-123.4567891, 33.333333, 0.1, -1024.6])
@pytest.mark.parametrize("spacing_mm", [2.0364, 3.27, 10 / 3, 7.1, 10.0])
def test_decimals_fit_their_sixteen_characters(
    tmp_path: Path, labels: np.ndarray, spacing_mm: float, lowest_mm: float
) -> None:
    """The distance between slices is measured, and comes out as 9.999999999999998."""
    spec = pet_spec(spacing=(round(spacing_mm, 9), 4.0, 4.0), origin=(-30.0, -20.0, lowest_mm))
    written(source_of(tmp_path / "study", spec), labels > 0, tmp_path / "lesions.dcm")
    for element in pydicom.dcmread(tmp_path / "lesions.dcm").iterall():
        if element.VR == "DS":
            values = element.value if element.VM > 1 else [element.value]
            assert all(len(str(value)) <= 16 for value in values), element


def test_a_segment_per_lesion(tmp_path: Path, images: SourceImages, labels: np.ndarray) -> None:
    path = tmp_path / "lesions.dcm"
    dataset = written(images, labels, path)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(read_back(path, images.pet.grid, (number,)), labels == number)
    np.testing.assert_array_equal(read_back(path, images.pet.grid, (1, 2, 3)), labels > 0)
    tracked = {item.TrackingUID for item in dataset.SegmentSequence}
    assert len(tracked) == 3
    check_with_dciodvfy(path)


def test_probabilities(tmp_path: Path, images: SourceImages, rng: np.random.Generator) -> None:
    path = tmp_path / "lesions.dcm"
    probability = rng.random((6, 10, 12)).astype(np.float32)
    dataset = written(images, probability, path)
    assert dataset.SegmentationFractionalType == "PROBABILITY"
    stored = np.round(probability * 255)
    np.testing.assert_array_equal(read_back(path, images.pet.grid), stored >= 127.5)
    check_with_dciodvfy(path)


def test_no_lesion_at_all(tmp_path: Path, images: SourceImages) -> None:
    path = tmp_path / "lesions.dcm"
    written(images, np.zeros((6, 10, 12), bool), path)
    assert read_back(path, images.pet.grid).sum() == 0
    check_with_dciodvfy(path)


def test_the_object_is_named_by_source_model_and_settings(
    tmp_path: Path, images: SourceImages, labels: np.ndarray
) -> None:
    stack = images.pet_stack
    assert stack is not None
    lesions = images.pet.with_array(labels > 0)
    again = [write_seg(tmp_path / "a.dcm", lesions, stack, MADE_BY).SOPInstanceUID for _ in range(2)]
    other_model = Provenance("test model", "1.0", "another", {"min_voxels": "10"})
    other = write_seg(tmp_path / "a.dcm", lesions, stack, other_model).SOPInstanceUID
    other_settings = Provenance("test model", "1.0", MADE_BY.identity, {"min_voxels": "5"})
    another = write_seg(tmp_path / "a.dcm", lesions, stack, other_settings).SOPInstanceUID
    assert again[0] == again[1] and len({again[0], other, another}) == 3


def test_another_grid_is_refused(tmp_path: Path, images: SourceImages) -> None:
    assert images.pet_stack is not None
    with pytest.raises(GeometryError):
        write_seg(tmp_path / "a.dcm", images.pet.reoriented("RAS"), images.pet_stack, MADE_BY)


def test_source_headers_beyond_the_standard(tmp_path: Path, labels: np.ndarray) -> None:
    header = {"StudyID": "longer than sixteen letters", "PatientName": "", "ReferringPhysicianName": ""}
    with pytest.warns(UserWarning, match="maximum length"):
        images = source_of(tmp_path / "study", pet_spec(header=header))
    written(images, labels, tmp_path / "a.dcm")
    check_with_dciodvfy(tmp_path / "a.dcm")


def test_a_segmentation_of_an_enhanced_pet(tmp_path: Path, labels: np.ndarray) -> None:
    dataset = enhanced_dataset(body_images((6, 10, 12))[0], pet_spec(), units="g/ml{SUVbw}")
    dataset.save_as(tmp_path / "pet.dcm", enforce_file_format=True)
    (source,) = find_studies([tmp_path / "pet.dcm"])
    images = read_source(source)
    path = tmp_path / "lesions.dcm"
    written(images, labels, path)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(read_back(path, images.pet.grid, (number,)), labels == number)


def round_trip(folder: Path, spec: SeriesSpec, labels: np.ndarray) -> None:
    """file -> Study -> SEG -> Study is the identity."""
    write_series(folder / "pet", body_images((6, 10, 12))[0], spec)
    ct = ct_spec(
        orientation=spec.orientation,
        spacing=spec.spacing,
        origin=spec.origin,
        positions_mm=spec.positions_mm,
    )
    write_series(folder / "ct", body_images((6, 10, 12))[1], ct)
    (source,) = find_studies([folder])
    images = read_source(source)
    written(images, labels > 0, folder / "seg.dcm")
    (source,) = find_studies([folder])
    study = to_study(read_source(source))
    assert study.reference is not None
    np.testing.assert_array_equal(study.reference.array, labels > 0)
    np.testing.assert_array_equal(study.pet.array, images.pet.array)


@pytest.mark.parametrize("step_mm", [3.0, -3.0])
@pytest.mark.parametrize("orientation", axis_directions())
def test_round_trip_in_all_48_orientations(
    tmp_path: Path, labels: np.ndarray, orientation: tuple[float, ...], step_mm: float
) -> None:
    heights = tuple(step_mm * z for z in range(6))
    spec = pet_spec(orientation=orientation, spacing=(3.0, 2.0, 1.5), positions_mm=heights)
    round_trip(tmp_path, spec, labels)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(angles=st.tuples(*[st.floats(-3, 3)] * 3))
def test_round_trip_of_oblique_series(
    tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray, angles: tuple[float, ...]
) -> None:
    rotation = Rotation.from_euler("xyz", angles).as_matrix()
    orientation = tuple(rotation[:, 0]) + tuple(rotation[:, 1])
    round_trip(tmp_path_factory.mktemp("oblique"), pet_spec(orientation=orientation), labels)


def test_uneven_steps_read_back_slice_by_slice(tmp_path: Path, labels: np.ndarray) -> None:
    spec = pet_spec(positions_mm=(0.0, 3.27, 6.54, 9.73, 13.0, 16.27))
    images = source_of(tmp_path / "study", spec)
    written(images, labels > 0, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", images.pet.grid), labels > 0)


def flip(dataset: pydicom.Dataset, *, rows: bool, columns: bool) -> None:
    """Store each frame the other way round, with its orientation negated and its position moved."""
    bits = pydicom.pixels.pixel_array(dataset)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    shift = np.zeros(3)
    if columns:
        bits = bits[:, :, ::-1]
        shift += cosines[:3] * spacing[1] * (dataset.Columns - 1)
        cosines[:3] *= -1
    if rows:
        bits = bits[:, ::-1, :]
        shift += cosines[3:] * spacing[0] * (dataset.Rows - 1)
        cosines[3:] *= -1
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = cosines.tolist()
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        position = groups.PlanePositionSequence[0]
        position.ImagePositionPatient = (np.array(position.ImagePositionPatient, float) + shift).tolist()
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)


@pytest.mark.parametrize(("rows", "columns"), [(True, False), (False, True), (True, True)])
def test_negated_directions_do_not_flip_the_mask(
    tmp_path: Path, images: SourceImages, labels: np.ndarray, rows: bool, columns: bool
) -> None:
    dataset = written(images, labels > 0, tmp_path / "seg.dcm")
    flip(dataset, rows=rows, columns=columns)
    dataset.save_as(tmp_path / "flipped.dcm")
    np.testing.assert_array_equal(read_back(tmp_path / "flipped.dcm", images.pet.grid), labels > 0)


def test_frames_in_any_order(
    tmp_path: Path, images: SourceImages, labels: np.ndarray, rng: np.random.Generator
) -> None:
    dataset = written(images, labels, tmp_path / "seg.dcm")
    order = rng.permutation(int(dataset.NumberOfFrames))
    bits = pydicom.pixels.pixel_array(dataset)[order]
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence([groups[i] for i in order])
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)
    dataset.save_as(tmp_path / "shuffled.dcm")
    for number in (1, 2, 3):
        found = read_back(tmp_path / "shuffled.dcm", images.pet.grid, (number,))
        np.testing.assert_array_equal(found, labels == number)


def test_a_segmentation_on_a_finer_grid(tmp_path: Path, images: SourceImages, labels: np.ndarray) -> None:
    fine = np.kron(labels > 0, np.ones((1, 2, 2), bool))
    spec = pet_spec(spacing=(4.0, 2.0, 2.0), origin=(-31.0, -21.0, -100.0))
    write_series(tmp_path / "fine", np.full(fine.shape, 100, np.uint16), spec)
    (source,) = find_studies([tmp_path / "fine"])
    finer = read_source(source)
    written(finer, fine, tmp_path / "seg.dcm")
    found = read_back(tmp_path / "seg.dcm", images.pet.grid)
    overlap = 2 * np.count_nonzero(found & (labels > 0)) / (found.sum() + (labels > 0).sum())
    assert overlap > 0.85


def foreign(images: SourceImages, pixels: np.ndarray, kind: str, path: Path, **options: object) -> None:
    """A segmentation of two segments as another tool writes it."""
    assert images.pet_stack is not None
    code = codes.SCT.Neoplasm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        described = [
            SegmentDescription(
                number, f"Lesion {number}", codes.SCT.MorphologicallyAbnormalStructure, code, "MANUAL"
            )
            for number in ((1, 2) if kind != "FRACTIONAL" else (1,))
        ]
        uids = {"series_instance_uid": f"{ROOT}.81", "sop_instance_uid": f"{ROOT}.82"}
        maker = {"manufacturer": "A", "manufacturer_model_name": "B", "software_versions": "1"}
        numbers = {"series_number": 1, "instance_number": 1, "device_serial_number": "1"}
        Segmentation(
            source_images(images.pet_stack), pixels, kind, described, **uids, **numbers, **maker, **options
        ).save_as(path)


def test_label_maps_of_other_tools(tmp_path: Path, images: SourceImages, labels: np.ndarray) -> None:
    pixels = np.where(labels == 3, 0, labels).astype(np.uint8)
    foreign(images, pixels, "LABELMAP", tmp_path / "map.dcm")
    for number in (1, 2):
        found = read_back(tmp_path / "map.dcm", images.pet.grid, (number,))
        np.testing.assert_array_equal(found, labels == number)


def test_segments_that_overlap(tmp_path: Path, images: SourceImages, labels: np.ndarray) -> None:
    first = labels > 0
    second = np.roll(first, 2, axis=2)
    pixels = np.stack([first, second], axis=-1).astype(np.uint8)
    foreign(images, pixels, "BINARY", tmp_path / "seg.dcm")
    found = read_back(tmp_path / "seg.dcm", images.pet.grid, (1, 2))
    np.testing.assert_array_equal(found, first | second)


def test_compressed_probabilities(tmp_path: Path, images: SourceImages, labels: np.ndarray) -> None:
    pixels = np.where(labels > 0, 0.75, 0.25)
    foreign(images, pixels, "FRACTIONAL", tmp_path / "seg.dcm", transfer_syntax_uid=RLELossless)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", images.pet.grid), labels > 0)


def test_a_cut_off_segmentation(tmp_path: Path, images: SourceImages, labels: np.ndarray) -> None:
    dataset = written(images, labels > 0, tmp_path / "seg.dcm")
    dataset.PixelData = dataset.PixelData[:10]
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(FormatError, match=r"seg\.dcm"):
        read_back(tmp_path / "seg.dcm", images.pet.grid)


def test_the_reference_of_a_study_is_its_segmentation(
    tmp_path: Path, images: SourceImages, labels: np.ndarray
) -> None:
    folder = tmp_path / "study"
    written(images, labels, folder / "seg.dcm")
    write_series(folder / "ct", body_images((6, 10, 12))[1], ct_spec())
    (source,) = find_studies([folder])
    study = to_study(read_source(source))
    assert study.reference is not None
    np.testing.assert_array_equal(study.reference.array, labels > 0)
    (source,) = find_studies([folder], IntakeOptions(roi="Lesion 2"))
    reference = read_source(source).reference
    assert isinstance(reference, Volume)
    np.testing.assert_array_equal(reference.array, labels == 2)
